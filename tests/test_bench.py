"The benchmark measures what it says; how fast anything is, is no test."
import json, os, subprocess, sys, time
import numpy as np, pytest, torch
from conftest import ROOT, PAPERS_LEARNERS
from m2vaal_nb.scale.benchmark import (bench, bench_busy, bench_lockstep, neighbours, pieces_of_a_round,
    select_once, steps_per_second, tables)
from m2vaal_nb.scale.training_step import Stepper, bench_feeding, bench_steps, gflop, machine
from m2vaal_nb.losses import LEARNERS

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

def test_pieces():
    steps = bench_steps(repeats=1)
    assert steps.keys() == LEARNERS.keys()
    assert all(v['of_peak'] == pytest.approx(v['floor_ms']/v['ms']) and 0 < v['kernels_ms'] and 0 < v['in_place_ms'] for v in steps.values())
    assert bench_feeding(repeats=1)['ratio'] > 0
    seconds, extra = select_once('weighted_anchors', 5000, 8)
    assert seconds > 0 and extra >= 0
    assert steps_per_second(2, steps=2, learner='classifier') > 0
    assert bench_lockstep('cpu', (2,), 2, 'classifier', repeats=1).keys() == {'separate', '2'}
    found = machine()
    assert found['peak_gflop_s'] > 1 and found['bandwidth_gb_s'] > .1 and found['cores'] >= 1

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
             'bench_busy', 'pieces_of_a_round')
    for name in parts: monkeypatch.setattr(f'm2vaal_nb.scale.benchmark.{name}', lambda *_, name=name, **__: dict(cores=1, name=name))
    found = bench(quick=True, say=lambda s: None)
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
