"Whatever stops a run, the same command ends with the log of a run that nothing stopped."
import importlib, multiprocessing, os, pickle, resource, shutil, signal, stat, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np, psutil, pytest, torch
from m2vaal_nb.experiments import one_by_one, plan, protocol_for, run_grid
from m2vaal_nb.foundations.files import write_whole
from m2vaal_nb.foundations.log import only_writer, read_log, write_line
from m2vaal_nb.samplers import SAMPLERS
from m2vaal_nb.losses import LEARNERS, Learner
from m2vaal_nb.loop import Job, Training, run, start_pool
from m2vaal_nb.scale.lockstep import covers, in_lockstep, lockstep_key, train_lockstep
from m2vaal_nb.scale.workers import Worker, on_workers, sendable

METHODS = ['margin', 'vaal', 'm2_vaal_no_adv']

def timeless(path): return [{k: v for k,v in l.items() if k not in ('timing', 'host')} for l in read_log(path)]

def forked(work)->int:
    "Do `work` in a child process, which starts at once because it need not import anything. Its exit status is 0 when nothing was raised."
    if pid := os.fork(): return pid
    status = 1
    try: work(); status = 0
    finally: os._exit(status)

def ended(pid, wait=True): return os.waitpid(pid, 0 if wait else os.WNOHANG)

@pytest.fixture(scope='module', autouse=True)
def one_thread():
    "Threads of the parent do not survive a fork."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

@pytest.fixture
def job(few, tiny, tmp_path):
    "(folder, method) -> the work of one run, and the log of it."
    p = replace(tiny, steps=12, batch=16)
    def work(folder, method='vaal'):
        todo = Job(protocol_for(p, method), method, seed=1)
        return lambda: list(run(todo, folder, 'cpu', few)), todo.log(folder)
    return work

@pytest.mark.parametrize('method', METHODS)
def test_sigkill_at_any_moment(method, job, tmp_path):
    started = time.perf_counter()
    work, log = job(tmp_path/'whole', method)
    work()
    took, want, g = time.perf_counter() - started, timeless(log), np.random.default_rng(METHODS.index(method))
    kills, finished = 0, 0
    while kills < 17:
        work, log = job(tmp_path/str(finished), method)
        while True:
            pid = forked(work)
            time.sleep(g.uniform(0, .9*took))
            os.kill(pid, signal.SIGKILL)
            how = ended(pid)[1]
            assert timeless(log) == want[:len(read_log(log))]
            if how == 0: break                       # it was done before the shot
            assert how == signal.SIGKILL
            kills += 1
        assert timeless(log) == want
        finished += 1

def test_torn_at_every_kind_of_byte(job, tmp_path):
    work, log = job(tmp_path)
    work()
    want, raw = timeless(log), log.read_bytes()
    ends = [i+1 for i,b in enumerate(raw) if b == ord('\n')]
    for cut in [0, 1, ends[0]-1, ends[0], ends[0]+1, ends[1]-2, ends[1]+40, len(raw)-1]:
        log.write_bytes(raw[:cut])
        work()
        assert timeless(log) == want

def test_a_run_outlives_its_parent_and_refuses_a_second_writer(job, tmp_path):
    work, log = job(tmp_path/'orphan')
    ready = tmp_path/'ready'
    def parent():
        child = forked(work)
        ready.write_text(str(child))
        time.sleep(60)
    pid = forked(parent)
    while not (ready.exists() and ready.read_text() and log.with_name('.vaal-1.lock').exists()): time.sleep(.005)
    os.kill(pid, signal.SIGKILL)
    ended(pid)
    refused = 0
    while len(read_log(log)) < 3:
        try: work()
        except ValueError as e: assert 'another process' in str(e); refused += 1
        time.sleep(.02)
    assert refused
    work()
    other, whole = job(tmp_path/'whole')
    other()
    assert timeless(log) == timeless(whole)

@pytest.mark.skipif(os.name == 'nt', reason='no folder can be opened')
def test_a_new_name_is_on_the_disk_before_it_is_counted_on(tmp_path, monkeypatch):
    "First the bytes, then the name, then the folder that holds the name."
    seen, fsync, replaced = [], os.fsync, os.replace
    def synced(at): seen.append('folder' if stat.S_ISDIR(os.fstat(at).st_mode) else 'file'); fsync(at)
    monkeypatch.setattr(os, 'fsync', synced)
    monkeypatch.setattr(os, 'replace', lambda *names: seen.append('name') or replaced(*names))
    def order(work): seen.clear(); work(); return [*seen]
    line = dict(method='random', seed=0, round=0, protocol={}, queried=[1])
    assert order(lambda: write_whole(tmp_path/'a', b'1')) == order(lambda: write_whole(tmp_path/'a', b'2')) == ['file', 'name', 'folder']
    assert order(lambda: write_line(tmp_path/'l.jsonl', [], line)) == ['file', 'folder']
    assert order(lambda: write_line(tmp_path/'l.jsonl', [line], dict(line, round=1))) == ['file']
    def full(at): 
        if stat.S_ISDIR(os.fstat(at).st_mode): raise OSError('no such thing here')
    monkeypatch.setattr(os, 'fsync', full)
    write_whole(tmp_path/'a', b'3')                     # some file systems cannot: the file is there all the same
    assert (tmp_path/'a').read_bytes() == b'3' and len(read_log(tmp_path/'l.jsonl')) == 2

def test_one_writer_at_a_time_though_the_lock_is_removed(tmp_path):
    "Four processes want it again and again: never two have it, and nothing of it is left."
    log, held = tmp_path/'run.jsonl', []
    def want(n):
        got = 0
        for _ in range(20_000):
            try:
                with only_writer(log):
                    (tmp_path/'inside').touch(exist_ok=False)        # two at a time would end here
                    (tmp_path/'inside').unlink()
                    got += 1
            except ValueError: pass
            if got == 150: break
        (tmp_path/f'{n}.txt').write_text(str(got))
    pids = [forked(lambda n=n: want(n)) for n in range(4)]
    assert [ended(pid)[1] for pid in pids] == [0]*4
    assert sorted(o.name for o in tmp_path.iterdir()) == [f'{n}.txt' for n in range(4)]
    assert [(tmp_path/f'{n}.txt').read_text() for n in range(4)] == ['150']*4

def test_the_lock_of_a_killed_process_is_taken_and_removed(tmp_path):
    log, ready = tmp_path/'run.jsonl', tmp_path/'ready'
    def hold():
        with only_writer(log):
            ready.touch()
            time.sleep(60)
    pid = forked(hold)
    while not ready.exists(): time.sleep(.005)
    with pytest.raises(ValueError, match='another process'), only_writer(log): pass
    os.kill(pid, signal.SIGKILL)
    ended(pid)
    assert (tmp_path/'.run.lock').exists()
    with only_writer(log): pass
    assert [o.name for o in tmp_path.iterdir()] == ['ready']

def test_a_full_disk_leaves_a_valid_log(job, tmp_path):
    work, whole = job(tmp_path/'whole')
    work()
    first = len(whole.read_bytes().splitlines(True)[0])
    work, log = job(tmp_path/'full')
    def on_a_full_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (first + 300, first + 300))
        try: work()
        except OSError: os._exit(7)
    assert os.waitstatus_to_exitcode(ended(forked(on_a_full_disk))[1]) == 7
    assert log.read_bytes().endswith(b'\n') and len(read_log(log)) == 1
    work()
    assert timeless(log) == timeless(whole)

def test_a_removed_folder_ends_the_run_in_one_sentence(few, tiny, tmp_path):
    lines = run(Job(tiny, 'random', 0), tmp_path/'gone', 'cpu', few)
    next(lines)
    shutil.rmtree(tmp_path/'gone')
    with pytest.raises(ValueError, match='was changed or removed'): next(lines)
    assert not (tmp_path/'gone').exists()

def test_logs_do_not_depend_on_what_runs_beside_or_before(few, tmp_path):
    small = dict(n_init=20, budget=8, max_labels=36, rounds=1, steps=3, batch=8, n_val=50)
    jobs = plan('fig2b', ['random', 'm2_vaal', 'ta_vaal', 'algorithm_2'], [0, 1], **small)
    def go(jobs, folder): return run_grid(jobs, tmp_path/folder, one_by_one, 'cpu', few, lambda s: None)
    go(jobs, 'a')
    torch.manual_seed(5), np.random.seed(5)
    go(jobs[::-1], 'b')
    pids = [forked(lambda j=j: go([j], 'c')) for j in jobs]
    assert all(ended(pid)[1] == 0 for pid in pids)
    logs = sorted(o.name for o in (tmp_path/'a').glob('*.jsonl'))
    assert len(logs) == 8
    for name in logs: assert timeless(tmp_path/'a'/name) == timeless(tmp_path/'b'/name) == timeless(tmp_path/'c'/name)

def test_ctrl_c_on_the_real_command(tmp_path):
    "Status 130, one sentence, a valid log, and the same command goes on."
    cmd = [Path(sys.executable).with_name('m2vaal_run'), 'fig2b', '--methods', 'random', '--rounds', '1', '--steps', '2', '--out', tmp_path]
    going = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)) # a shell's background jobs ignore it
    assert 'round 0' in going.stdout.readline()
    going.send_signal(signal.SIGINT)
    _, said = going.communicate(timeout=60)
    assert going.returncode == 130 and said.count('\n') == 1 and 'interrupted' in said
    assert len(read_log(tmp_path/'fig2b/random-0.jsonl')) == 1
    again = subprocess.run(cmd, capture_output=True, text=True)
    assert again.returncode == 0 and '1 of 2 rounds were there already' in again.stdout and not again.stderr

# --- workers ---
@pytest.fixture
def grid(few, tmp_path):
    small = dict(n_init=20, budget=8, max_labels=44, steps=10, batch=16, n_val=50)
    jobs = plan('fig2b', ['random', 'vaal', 'm2_vaal_no_adv'], [0], **small)
    def go(folder, engine=on_workers(2), say=lambda s: None): return run_grid(jobs, tmp_path/folder, engine, 'cpu', few, say)
    return go

def test_a_killed_worker_costs_its_round_and_is_named(grid, tmp_path):
    said = []
    def say(s):
        said.append(s)
        if len(said) == 3: os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    grid('two', say=say), grid('one', one_by_one)
    died = [s for s in said if 'died' in s]
    assert len(died) == 1 and 'exit status -9' in died[0] and died[0].startswith('The worker on ') and 'its run goes on' in died[0]
    logs = sorted(o.name for o in (tmp_path/'one').glob('*.jsonl'))
    assert len(logs) == 3 and not multiprocessing.active_children()
    for name in logs: assert timeless(tmp_path/'one'/name) == timeless(tmp_path/'two'/name)

def test_a_run_that_always_kills_its_worker_is_given_up(grid, tmp_path):
    said = []
    def say(s):
        said.append(s)
        for o in multiprocessing.active_children(): os.kill(o.pid, signal.SIGKILL)
    with pytest.raises(ValueError, match='lost its worker 3 times'):
        for w in range(3): grid('lost', say=say)
    assert any('given up' in s for s in said)

def test_a_failing_run_does_not_stop_the_others(few, tiny, tmp_path):
    jobs = [Job(protocol_for(replace(tiny, lr=lr), m), m, 0) for m,lr in (('random', 1e20), ('margin', 1e-3), ('entropy', 1e-3))]
    with pytest.raises(ValueError, match='Training diverged'): list(on_workers(2).lines(jobs, tmp_path, 'cpu', few))
    assert [len(read_log(job.log(tmp_path))) for job in jobs] == [0, 3, 3]

def test_a_failing_run_does_not_stop_those_in_lockstep_with_it(few, tiny, tmp_path, monkeypatch):
    "Of runs in one step one diverges, one picks nonsense, and one of another step fits nothing."
    def fails(t): raise ZeroDivisionError('nothing to fit')
    monkeypatch.setitem(LEARNERS, 'fails', Learner(fit=fails))
    monkeypatch.setitem(SAMPLERS, 'late', lambda view, budget: view.ids[:budget if len(view) < 1000 else 1])   # the dry run is passed
    vae = replace(tiny, learner='m2_vaal')
    parts = dict(lost=dict(lam=1e39), nonsense=dict(sampler='late'), whole={})
    jobs = [Job(replace(vae, **kw), name, 0) for name,kw in parts.items()] + [Job(tiny, 'random', 0)]
    with pytest.raises(ValueError, match='Training diverged'): list(in_lockstep().lines(jobs, tmp_path/'both', 'cpu', few))
    assert [len(read_log(job.log(tmp_path/'both'))) for job in jobs] == [0, 0, 3, 3]
    with pytest.raises(ValueError, match='nonsense|must pick'): list(in_lockstep().lines(jobs[1:], tmp_path/'one', 'cpu', few))
    for job in jobs[2:]: list(in_lockstep().lines([job], tmp_path/'alone', 'cpu', few))
    for job in jobs[2:]: assert [l['queried'] for l in read_log(job.log(tmp_path/'both'))] == [l['queried'] for l in read_log(job.log(tmp_path/'alone'))]
    fitted = train_lockstep([Training(start_pool(few, tiny, 0)[0], replace(tiny, learner='fails'), 0, 0)])
    assert isinstance(fitted[0], ZeroDivisionError)

def test_learners_that_cannot_share_a_step_take_turns(few, tiny, tmp_path, monkeypatch):
    "Each has a term of its own, or the same terms of another pass: in lockstep they log what they log alone."
    most = LEARNERS['m2_vaal']
    first, d = most.phases
    def plain(*args): return first.forward(*args)
    def part(terms, forward=first.forward): return replace(most, phases=(replace(first, forward=forward, terms={t: first.terms[t] for t in terms}), d))
    own = dict(adv=part(['classification', 'adversarial']), kl=part(['classification', 'reconstruction', 'kl']),
               other=part(['classification', 'adversarial'], plain))
    for name,learner in own.items(): monkeypatch.setitem(LEARNERS, name, learner)
    jobs = [Job(replace(tiny, learner=name), name, 0) for name in own]
    assert len({lockstep_key(job.protocol) for job in jobs}) == 1
    for job in jobs: list(run(job, tmp_path/'alone', 'cpu', few))
    list(in_lockstep().lines(jobs, tmp_path/'both', 'cpu', few))
    for job in jobs:
        a, b = (read_log(job.log(tmp_path/d)) for d in ('alone', 'both'))
        assert [l['queried'] for l in a] == [l['queried'] for l in b]
        for one,two in zip(a, b): assert one['train_loss'] == pytest.approx(two['train_loss'], rel=1e-3)
    pool, _ = start_pool(few, tiny, 0)
    with pytest.raises(ValueError, match='cannot share a step'): train_lockstep([Training(pool, job.protocol, 0, 0) for job in jobs])
    wide = Job(replace(tiny, learner='m2_vaal'), 'wide', 0)
    assert covers(most, own['adv']) and covers(most, own['kl']) and not covers(own['adv'], own['other'])
    list(in_lockstep(2).lines([*jobs[:2], wide], tmp_path/'wide', 'cpu', few))       # the one that covers both is not in their step

def test_a_worker_that_died_while_it_was_idle(few, tiny, tmp_path):
    "It is let go without a word; given a run, it is heard to be dead."
    worker = Worker('cpu', few)
    worker.process.kill()
    worker.process.join()
    worker.start(Job(tiny, 'random', 0), tmp_path)
    assert worker.heard() == ('died', None)
    worker.stop()

def test_a_sampler_without_a_file_is_named(few, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(SAMPLERS, 'mine', lambda view, budget: view.ids[:budget])
    jobs = [Job(replace(tiny, sampler='mine'), 'mine', 0), Job(tiny, 'random', 0)]
    with pytest.raises(ValueError, match='The sampler mine cannot go to another process'): list(on_workers(2).lines(jobs, tmp_path, 'cpu', few))
    assert len(read_log(jobs[1].log(tmp_path))) == 3

def test_images_that_are_handed_over_need_no_meaning(few, tiny, tmp_path, monkeypatch):
    from m2vaal_nb.data import DATASETS
    monkeypatch.setitem(DATASETS, 'mine', lambda: few)
    job = Job(replace(tiny, dataset='mine'), 'random', 0)
    assert len(list(on_workers(1).lines([job], tmp_path, 'cpu', few))) == 3

def test_a_loss_that_cannot_travel_is_named(few, tiny, tmp_path, monkeypatch):
    "The worker's own would give another log."
    from m2vaal_nb.losses import TERMS
    monkeypatch.setitem(TERMS, 'classification', lambda out, batch: out.L.logits.square().mean())
    with pytest.raises(ValueError, match='The loss terms of the learner classifier cannot go to another process'):
        list(on_workers(1).lines([Job(tiny, 'random', 0)], tmp_path, 'cpu', few))

def test_a_run_of_other_images_is_not_gone_on_with(few, tiny, tmp_path):
    turned = replace(few, x=few.x.flip(0), y=few.y[::-1].copy())
    job = Job(tiny, 'random', 0)
    list(run(Job(replace(job.protocol, rounds=1), 'random', 0), tmp_path, 'cpu', few))
    before = job.log(tmp_path).read_bytes()
    with pytest.raises(ValueError, match='is about other labels'): list(run(job, tmp_path, 'cpu', turned))
    assert job.log(tmp_path).read_bytes() == before

class Two(Exception):
    "Is pickled, and cannot be read again."
    def __init__(self, a, b): super().__init__(f'{a} and {b}')
class Held(Exception):
    "Cannot be pickled."
    def __init__(self): self.why = lambda: 'no'
class Both(ValueError):
    "Comes back as another kind of error."
    def __reduce__(self): return ValueError, ('both',)

@pytest.mark.parametrize('error', [Two(1, 2), Held(), Both('two')], ids=['cannot be read', 'cannot be pickled', 'comes back as another'])
def test_an_error_that_cannot_travel_is_told_in_words(error, monkeypatch):
    said = sendable(error)
    assert type(said) is RuntimeError and str(said) == f'{type(error).__name__}: {error}'
    assert str(pickle.loads(pickle.dumps(said))) == str(said)

def test_an_error_that_can_travel_is_itself():
    for error in (ValueError('one sentence'), KeyError('k'), OSError(28, 'full')): assert sendable(error) is error

STRANGE = """class Two(Exception):
    def __init__(self, a, b): super().__init__(f'{a} and {b}')
def strange(view, budget):
    if budget > 2 and len(view) > 1000: raise Two(1, 2)      # the dry run is passed
    return view.ids[:budget]
"""

def test_a_strange_error_does_not_end_the_grid(few, tiny, tmp_path, monkeypatch):
    (tmp_path/'strange_of_a_test.py').write_text(STRANGE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('PYTHONPATH', f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setitem(SAMPLERS, 'strange', importlib.import_module('strange_of_a_test').strange)
    jobs = [Job(replace(tiny, sampler='strange'), 'strange', 0), Job(tiny, 'random', 0)]
    with pytest.raises(RuntimeError, match='Two: 1 and 2'): list(on_workers(1).lines(jobs, tmp_path/'out', 'cpu', few))
    assert [len(read_log(job.log(tmp_path/'out'))) for job in jobs] == [0, 3]

def test_workers_die_with_their_parent(grid, tmp_path):
    pid = forked(lambda: grid('orphans'))
    me = psutil.Process(pid)
    while not list((tmp_path/'orphans').glob('*.jsonl')): time.sleep(.02)
    family = me.children(recursive=True)
    assert len(family) >= 2
    os.kill(pid, signal.SIGKILL)
    ended(pid)
    assert not psutil.wait_procs(family, timeout=10)[1]
    grid('orphans'), grid('one', one_by_one)
    for log in (tmp_path/'one').glob('*.jsonl'): assert timeless(log) == timeless(tmp_path/'orphans'/log.name)
