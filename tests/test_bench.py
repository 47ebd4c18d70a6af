"The benchmark measures what it says; how fast anything is, is no test."
import json, os, subprocess, sys, time
import numpy as np, pytest, torch
from torch.utils.flop_counter import FlopCounterMode
from conftest import ROOT, PAPERS_LEARNERS
from m2vaal_nb.scale.benchmark import (bench, bench_busy, bench_lockstep, neighbours, pieces_of_a_round,
    select_once, steps_per_second, tables)
from m2vaal_nb.scale.limit import REST, bench_attempts, bench_kinds, calls_of, limit, need_of, peaks_of, ways
from m2vaal_nb.scale.training_step import Stepper, bench_feeding, bench_steps, gflop, machine
from m2vaal_nb.losses import LEARNERS, Learner

def test_straightforward_and_ours_do_the_same_first_step():
    for name in ('vaal', 'ta_vaal', 'm2_vaal_no_adv'):
        ours, plain = Stepper(LEARNERS[name], steps=1), Stepper(LEARNERS[name], steps=1, plain=True)
        a, b = ours(), plain()
        assert a.keys() == b.keys()
        assert all(abs(a[t] - b[t]) < 1e-3*abs(b[t]) for t in a if t != 'discriminator')

def test_flops_of_a_step_are_those_counted_by_hand():
    "The classifier: two convolutions, two products; backward twice that, less the gradient of the images."
    conv1, conv2, linear, out = 14*14*16*16, 7*7*32*256, 1568*128, 128*10
    by_hand = 2*64*(3*(conv1 + conv2 + linear + out) - conv1)/1e9
    assert np.isclose(gflop(Stepper(LEARNERS['classifier'], steps=1)), by_hand, rtol=1e-3)

@pytest.mark.parametrize('name', PAPERS_LEARNERS)
def test_work_of_each_kind_is_what_pytorch_counts(name):
    step = Stepper(LEARNERS[name], steps=1)
    need = need_of(calls_of(step))
    with FlopCounterMode(display=False) as counter: step()
    counted = {str(op).removeprefix('aten.'): n/1e9 for op,n in counter.get_flop_counts()['Global'].items()}
    assert need['products'] == pytest.approx(sum(counted.get(op, 0) for op in ('mm', 'addmm', 'bmm')))
    assert need['convolutions'] == pytest.approx(counted['convolution'])
    assert need['convolutions, backward'] == pytest.approx(counted['convolution_backward'])
    assert need[REST] > 0 and len(need) == 4

def test_work_of_each_kind_is_that_counted_by_hand():
    "The classifier: products and convolutions once forward and twice back, but for the gradient of the images."
    conv1, conv2, linears = 14*14*16*16, 7*7*32*256, 1568*128 + 128*10
    need = need_of(calls_of(Stepper(LEARNERS['classifier'], steps=1)))
    by_hand = {'products': 3*linears, 'convolutions': conv1 + conv2, 'convolutions, backward': conv1 + 2*conv2}
    assert {kind: need[kind] for kind in by_hand} == pytest.approx({kind: 2*64*n/1e9 for kind,n in by_hand.items()})

def test_the_limit_is_the_harmonic_mean_of_the_peaks_weighted_with_work():
    need, peaks = dict(a=3., b=1., c=2.), dict(a=dict(x=30., y=5.), b=dict(x=4.), c=dict(x=8., y=16.))
    assert limit(need, peaks) == pytest.approx(.1 + .25 + .125)
    alike = dict(a=dict(x=7.), b=dict(x=7.), c=dict(x=7.))
    assert sum(need.values())/limit(need, alike) == pytest.approx(7)

def test_each_way_does_the_same_work():
    calls = {str(kernel): (kernel, args) for kernel,args,_ in calls_of(Stepper(LEARNERS['m2_vaal'], steps=1))}
    for name in ('addmm.default', 'mm.default', 'convolution.default', 'convolution_backward.default'):
        kernel, args = calls[f'aten.{name}']
        with torch.no_grad(): first, *others = [f() for f in ways(kernel, args).values()]
        assert others
        if name.startswith('addmm'): first = first - args[0]      # oneDNN's has no bias
        def numbers(found): return [t for t in (found if isinstance(found, tuple) else [found]) if t is not None]
        for other in others: torch.testing.assert_close(numbers(other), numbers(first), rtol=1e-3, atol=1e-4)

def test_kinds_and_attempts_are_measured_and_shown():
    kinds, attempts = bench_kinds(repeats=1, names=['classifier', 'm2_vaal']), bench_attempts(repeats=2, learner='m2_vaal')
    for of in kinds['steps'].values():
        assert [*of] == ['products', 'convolutions', 'convolutions, backward', REST, 'the step']
        for kind,v in of.items():
            assert v['rate'] == pytest.approx(1000*v['work']/v['ms']) and v['of_peak'] == pytest.approx(v['rate']/v['peak'])
            if kind != 'the step': assert v['peak'] == max(kinds['peaks'][kind].values())
        needs = {kind: v['work'] for kind,v in of.items() if kind != 'the step'}
        assert of['the step']['of_peak'] == pytest.approx(1000*limit(needs, kinds['peaks'])/of['the step']['ms'])
    assert attempts['as it is']['ratio'] == 1 and all(v['low'] <= v['ratio'] <= v['high'] for v in attempts.values())
    published = json.loads((ROOT/'results/bench.json').read_text())
    shown = tables({**published, 'kinds': kinds, 'attempts': attempts})
    assert shown['steps by kind of work, against its peak'].shape == (10, 5)
    assert shown['peaks, GFLOP/s; GB/s of everything else'].shape == (sum(map(len, kinds['peaks'].values())), 1)
    assert list(shown['attempts at a faster step of M2-VAAL'].index) == list(attempts)
    without = {k: v for k,v in published.items() if k not in ('kinds', 'attempts')}     # an older file
    assert not [title for title in tables(without) if 'kind' in title or 'attempt' in title]

def test_bfloat16_is_a_way_too():
    (kernel, args, _), = [call for call in calls_of(Stepper(LEARNERS['classifier'], steps=1))
                          if str(call[0]) == 'aten.addmm.default' and call[1][0].shape == (128,)]
    names = [*ways(kernel, args, (torch.float32, torch.bfloat16))]
    assert [n.split(',')[0] for n in names] == ['float32', 'float32', 'bfloat16', 'bfloat16'] or not torch.backends.mkldnn.is_available()

def test_pieces():
    steps = bench_steps(repeats=1)
    assert steps.keys() == {name for name,learner in LEARNERS.items() if learner.phases}
    assert all(v['ratio'] == pytest.approx(v['ms']/v['straightforward_ms']) and 0 < v['kernels_ms'] and 0 < v['in_place_ms'] for v in steps.values())
    assert bench_feeding(repeats=1)['ratio'] > 0
    seconds, extra = select_once('weighted_anchors', 5000, 8)
    assert seconds > 0 and (extra >= 0 if os.path.exists('/proc/self/clear_refs') else np.isnan(extra))    # who cannot tell says so
    assert steps_per_second(2, steps=2, learner='classifier') > 0
    assert bench_lockstep('cpu', (2,), 2, 'classifier', repeats=1).keys() == {'separate', '2'}
    found = machine()
    assert found['bandwidth_gb_s'] > .1 and found['cores'] >= 1

def test_a_learner_that_takes_no_steps_has_none_to_measure(monkeypatch):
    "The wing beyond the paper adds such."
    learners = dict(classifier=LEARNERS['classifier'], fits=Learner(fit=lambda t: None))
    monkeypatch.setattr('m2vaal_nb.scale.training_step.LEARNERS', learners)
    monkeypatch.setattr('m2vaal_nb.scale.training_step.bench_step', lambda learner, *_: learner)
    assert bench_steps(repeats=1) == dict(classifier=LEARNERS['classifier'])

def test_work_beside_other_programs_is_measured_and_shown():
    threads, calls = torch.get_num_threads(), pieces_of_a_round(n=2000, budget=5, steps=1, images=50)
    found = bench_busy(calls, repeats=1, processes=1)
    assert torch.get_num_threads() == threads
    assert found.keys() == {'training', 'predictions', 'class_anchors', 'weighted_anchors', '40 times margin',
                            'weighted_anchors, all threads'}
    for v in found.values(): assert v['idle'] > 0 and v['ratio'] == pytest.approx(v['busy']/v['idle'])
    published = json.loads((ROOT/'results/bench.json').read_text())
    shown = tables({**published, 'busy': found})['idle and beside four other programs, seconds']
    assert list(shown.index) == list(found) and list(shown.columns) == ['idle', 'busy', 'ratio']

def test_it_is_part_of_the_benchmark(monkeypatch):
    parts = ('machine', 'bench_steps', 'bench_feeding', 'bench_scoring', 'bench_selection', 'bench_workers', 'bench_lockstep',
             'bench_busy', 'bench_kinds', 'pieces_of_a_round')
    for name in parts: monkeypatch.setattr(f'm2vaal_nb.scale.benchmark.{name}', lambda *_, name=name, **__: dict(cores=1, name=name))
    found = bench(quick=True, say=lambda s: None)
    assert found['kinds']['name'] == 'bench_kinds' and 'attempts' not in found
    assert found['busy']['name'] == 'bench_busy' and found['selection']['name'] == 'bench_selection'

def gone(pid):
    "Has a process ended? A zombie has."
    try: return (state := subprocess.run(['ps', '-o', 'stat=', '-p', str(pid)], capture_output=True, text=True).stdout) == '' or state[0] == 'Z'
    except FileNotFoundError: pytest.skip('there is no ps here')

def test_neighbours_end_with_what_they_disturb_and_with_their_parent():
    with pytest.raises(KeyboardInterrupt), neighbours(2) as running: raise KeyboardInterrupt
    assert all(r.poll() is not None for r in running)
    code = 'import time\nfrom m2vaal_nb.scale.benchmark import neighbours\nwith neighbours(1) as (r,): print(r.pid, flush=True), time.sleep(600)'
    parent = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.kill(), parent.wait()
    for _ in range(200):
        if gone(pid): return
        time.sleep(.1)
    os.kill(pid, 9)
    assert False, 'it went on without its parent'

def test_tables_show_the_published_run():
    found = json.loads((ROOT/'results/bench.json').read_text())
    shown = tables(found)
    assert set(shown['steps'].index) == set(PAPERS_LEARNERS) and shown['machine'].loc['cpu', 'one thread'] == found['machine']['cpu']
    assert set(shown['idle and beside four other programs, seconds'].columns) == {'idle', 'busy', 'ratio'}
    lockstep, = [t for title,t in shown.items() if title.startswith('lockstep')]
    assert 'gpu' not in lockstep.index and 'separate' in lockstep.index
