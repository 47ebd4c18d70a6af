"The benchmark measures what it says; how fast anything is, is no test."
import json
import numpy as np, pytest
from conftest import ROOT
from m2vaal_nb.scale.benchmark import (Stepper, bench_feeding, bench_lockstep, bench_steps, machine,
    select_once, steps_per_second, tables)
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
    assert np.isclose(Stepper(LEARNERS['classifier'], steps=1).gflop(), by_hand, rtol=1e-3)

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

def test_tables_show_the_published_run():
    found = json.loads((ROOT/'results/bench.json').read_text())
    shown = tables(found)
    assert set(shown['steps'].index) == set(LEARNERS) and shown['machine'].loc['cpu', 'one thread'] == found['machine']['cpu']
