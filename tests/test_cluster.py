"A grid on Ray ends with the logs of a grid at home, whatever dies meanwhile."
import os, shutil, signal, socket, sys, time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
import pytest
from m2vaal_nb.scale import cluster
from m2vaal_nb.scale.cluster import check_address, connected, go_on, on_ray, pick_cluster_device
from m2vaal_nb.foundations.log import only_writer, read_log
from m2vaal_nb.loop import Job, run
from m2vaal_nb.samplers import SAMPLERS, margin

pytestmark = pytest.mark.cluster

def timeless(path): return [{k: v for k,v in l.items() if k not in ('timing', 'host')} for l in read_log(path)]

@pytest.fixture(scope='module')
def ray():
    "One Ray for all tests; `$RAY_ADDRESS` lends another than one of their own."
    pytest.importorskip('ray')
    with connected(os.environ.get('RAY_ADDRESS')) as ray: yield ray

@pytest.fixture
def jobs(tiny):
    both = dict(vaal='discriminator', classifier='margin')
    return [Job(replace(tiny, learner=l, sampler=s), l, 0) for l,s in both.items()]

@pytest.fixture
def home(jobs, few, tmp_path):
    "The folder of the same runs in this process."
    for job in jobs: list(run(job, tmp_path/'home', 'cpu', few))
    return tmp_path/'home'

def on_this_ray(jobs, folder, data, **kw):
    tries = dict(tries=kw.pop('tries')) if 'tries' in kw else {}
    return on_ray(**tries).lines(jobs, folder, data=data, **kw)

def assert_same(a, b):
    logs = sorted(o.name for o in b.glob('*.jsonl'))
    assert logs and sorted(o.name for o in a.glob('*.jsonl')) == logs
    for name in logs: assert timeless(a/name) == timeless(b/name)

def test_logs_are_those_of_one_process(ray, jobs, home, few, tmp_path):
    lines = list(on_this_ray(jobs, tmp_path/'ray', data=few))
    assert Counter(l['method'] for l in lines) == {job.method: 3 for job in jobs}
    assert_same(tmp_path/'ray', home)
    assert ray.is_initialized()

def test_goes_on_from_what_is_there(ray, jobs, home, few, tmp_path):
    shutil.copytree(home, tmp_path/'ray')
    log = tmp_path/'ray/vaal-0.jsonl'
    log.write_bytes(b''.join(log.read_bytes().splitlines(True)[:2])[:-50])
    assert [(l['method'], l['round']) for l in on_this_ray(jobs, tmp_path/'ray', data=few)] == [('vaal', 1), ('vaal', 2)]
    assert [l['round'] for l in on_this_ray(jobs, tmp_path/'ray', data=few)] == []
    assert_same(tmp_path/'ray', home)

def deadly(mark, times):
    "A strategy that kills its process in the second round, so many times."
    def deadly(view, budget):
        if len(view) == 1022 and (died := len(list(mark.glob('*')))) < times:
            (mark/str(died)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return margin(view, budget)
    mark.mkdir()
    return deadly

def test_a_killed_worker_costs_its_round_and_is_named(ray, tiny, few, tmp_path, monkeypatch):
    monkeypatch.setitem(SAMPLERS, 'deadly', deadly(tmp_path/'mark', 1))
    job, said = Job(replace(tiny, sampler='deadly'), 'deadly', 0), []
    assert [l['round'] for l in on_this_ray([job], tmp_path/'ray', data=few, say=said.append)] == [0, 1, 2]
    assert said == ['The Ray worker on deadly, seed 0 died (ActorDiedError); its run goes on from its log.']
    list(run(job, tmp_path/'home', 'cpu', few))
    assert_same(tmp_path/'ray', tmp_path/'home')

def test_a_run_that_loses_every_worker_is_given_up_and_the_others_end(ray, tiny, jobs, home, few, tmp_path, monkeypatch):
    monkeypatch.setitem(SAMPLERS, 'deadly', deadly(tmp_path/'mark', 99))
    said, lines = [], []
    with pytest.raises(ValueError, match='deadly, seed 0 lost its Ray worker 2 times') as e:
        for line in on_this_ray([Job(replace(tiny, sampler='deadly'), 'deadly', 0), *jobs], tmp_path/'ray', data=few, say=said.append, tries=2): lines.append(line)
    assert '\n' not in str(e.value) and len(said) == 2 and 'given up' in said[1]
    assert len(lines) == 7 and len(read_log(tmp_path/'ray/deadly-0.jsonl')) == 1
    (tmp_path/'ray/deadly-0.jsonl').unlink()
    assert_same(tmp_path/'ray', home)

def test_what_fails_does_not_stop_the_others(ray, jobs, home, few, tmp_path):
    blind = replace(jobs[1].protocol, sampler='discriminator')
    with only_writer_in(tmp_path/'ray', 'busy-0'), pytest.raises(ValueError, match='being written by another process'):
        list(on_this_ray([Job(blind, 'busy', 0), Job(blind, 'blind', 0), *jobs], tmp_path/'ray', data=few))
    with pytest.raises(ValueError, match='does not reveal `d_N`'): list(on_this_ray([Job(blind, 'blind', 0)], tmp_path/'ray', data=few))
    with pytest.raises(ValueError, match='holds another run'): list(on_this_ray([replace(jobs[0], protocol=replace(jobs[0].protocol, steps=3))], tmp_path/'ray', data=few))
    assert_same(tmp_path/'ray', home)

def only_writer_in(folder, name):
    folder.mkdir()
    return only_writer(folder/f'{name}.jsonl')

def test_ctrl_c_leaves_whole_logs_without_a_lock(ray, jobs, home, few, tmp_path):
    going = on_this_ray(jobs, tmp_path/'ray', data=few)
    next(going)
    with pytest.raises(KeyboardInterrupt): going.throw(KeyboardInterrupt())
    for log in (tmp_path/'ray').glob('*.jsonl'): assert timeless(log) == timeless(home/log.name)[:len(read_log(log))]
    list(on_this_ray(jobs, tmp_path/'ray', data=few))
    assert_same(tmp_path/'ray', home)

def test_a_removed_log_ends_its_run_in_one_sentence(ray, jobs, few, tmp_path):
    going = on_this_ray(jobs[:1], tmp_path/'ray', data=few)
    next(going)
    (tmp_path/'ray/vaal-0.jsonl').unlink()
    with pytest.raises(ValueError, match='was changed or removed'): list(going)

def test_another_kind_of_machine_is_said(ray, jobs, home, few, tmp_path):
    log = tmp_path/'ray/classifier-0.jsonl'
    log.parent.mkdir()
    log.write_text((home/log.name).read_text().splitlines(True)[0].replace('"threads": 1', '"threads": 2'))
    with pytest.warns(UserWarning, match='was begun with .* and goes on with'): list(on_this_ray(jobs[1:], tmp_path/'ray', data=few))
    assert timeless(log) == timeless(home/log.name)

def test_connected_already(ray, jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, 'check_address', lambda address: None)
    with pytest.raises(ValueError, match='connected to a Ray cluster already'): next(on_ray('127.0.0.1:6379').lines(jobs, tmp_path))

# --- without a Ray ---
@pytest.mark.parametrize('address, says', [
    ('ray://', 'must be ray://host:port'), ('http://127.0.0.1:80', 'must be'), ('somewhere', 'must be'), ('', 'must be'),
    ('ray://127.0.0.1:9', 'No Ray cluster answers at ray://127.0.0.1:9'), ('127.0.0.1:99999', 'No Ray cluster answers')])
def test_bad_addresses(address, says):
    with pytest.raises(ValueError, match=says) as e: check_address(address)
    assert '\n' not in str(e.value)

@pytest.mark.parametrize('says', [None, b'HTTP/1.1 400 Bad Request\r\n\r\n', b''])
@pytest.mark.parametrize('scheme', ['', 'ray://'])
def test_what_is_no_ray_is_told_within_seconds(scheme, says):
    "Something that keeps silent, a web server, and something that hangs up."
    with socket.create_server(('127.0.0.1', 0)) as there, ThreadPoolExecutor() as pool:
        there.settimeout(5)
        answer = pool.submit(lambda: (conn := there.accept()[0], says is None or conn.sendall(says), says is None or conn.close()))
        started = time.perf_counter()
        with pytest.raises(ValueError, match='No Ray cluster answers at .*: (timed out|what answers is no Ray|.*reset by peer)'): check_address(f'{scheme}127.0.0.1:{there.getsockname()[1]}')
        assert time.perf_counter() - started < 10
        answer.result()[0].close()

def test_a_run_moves_after_any_round(jobs, home, few):
    for job in jobs:
        want = read_log(job.log(home))
        for n in range(4): assert [l['queried'] for l in go_on(job, want[:n], data=few)] == [l['queried'] for l in want[n:]]

def test_devices():
    with pytest.raises(ValueError, match='choose one of auto, cpu, cuda'): pick_cluster_device('tpu', {})
    with pytest.raises(ValueError, match='no node of the Ray cluster has a GPU'): pick_cluster_device('cuda', dict(CPU=4.))
    assert [pick_cluster_device(*a) for a in (('auto', {}), ('auto', dict(GPU=1.)), ('cpu', dict(GPU=1.)), ('cuda', dict(GPU=.5)))] == ['cpu', 'cuda', 'cpu', 'cuda']

def test_without_ray_one_sentence_says_what_to_install(monkeypatch, jobs, tmp_path):
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(ImportError, match=r"pip install 'm2vaal_nb\[ray\]'"): next(on_ray().lines(jobs, tmp_path))
