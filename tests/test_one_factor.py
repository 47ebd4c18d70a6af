"Experiments that change one thing: no first labels, a long tail, wrong labels."
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest, torch
from torch.nn import functional as F
from m2vaal_nb.data import Dataset, initial_ids
from m2vaal_nb.beyond import one_factor as of
from m2vaal_nb.beyond.declared import CONTROLS, SEEDS, STRATEGIES, few, slug_of
from m2vaal_nb.experiments import LINEUPS, METHODS, PROTOCOLS, protocol_for, read_results
from m2vaal_nb.foundations.log import read_log
from m2vaal_nb.loop import Job, Protocol, run

ROOT = Path(__file__).parents[1]

def features(n=200, n_classes=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = np.arange(n + 60) % n_classes
    h = F.normalize(torch.eye(8)[y] + .3*torch.randn(n + 60, 8, generator=g), dim=1)
    return Dataset(h[:n], y[:n], h[n:], y[n:], tuple(f'c{i}' for i in range(n_classes)))

NOTHING = Protocol(n_init=0, budget=7, max_labels=20, n_val=20, learner='linear')

@pytest.mark.parametrize('sampler', [*STRATEGIES, *CONTROLS])
def test_every_strategy_begins_with_nothing(sampler, tmp_path):
    method = slug_of(sampler)
    lines = list(run(Job(protocol_for(NOTHING, method), method, 3), tmp_path, 'cpu', features()))
    assert [line['n_labelled'] for line in lines] == [0, 7, 14, 20]
    assert lines[0]['initial'] == [] and lines[0]['d_auc'] is None and lines[0]['queried']
    assert lines[-1]['test_acc'] > .5 > lines[0]['test_acc']

def test_without_labels_margin_is_random_and_doubt_is_herding(tmp_path):
    def first(sampler):
        method = slug_of(sampler)
        return next(run(Job(protocol_for(NOTHING, method), method, 0), tmp_path, 'cpu', features()))['queried']
    assert first('margin') == first('random')
    assert first('doubt_herding') == first('max_herding') == first('uherding') != first('random')

def test_a_run_from_nothing_goes_on_from_its_log(tmp_path):
    method = slug_of('doubt_herding')
    job = Job(protocol_for(NOTHING, method), method, 0)
    whole = list(run(job, tmp_path/'whole', 'cpu', features()))
    for _ in range(4): next(run(job, tmp_path/'cut', 'cpu', features()))       # stopped after every round
    lines = read_log(job.log(tmp_path/'cut'))
    assert [line['queried'] for line in lines] == [line['queried'] for line in whole]

def test_what_learns_from_images_needs_a_label(few, tmp_path):
    job = Job(replace(NOTHING, learner='classifier', steps=1), 'random', 0)
    with pytest.raises(ValueError, match='`n_init` is 0, but the learner classifier needs a label'):
        next(run(job, tmp_path, 'cpu', few))
    assert not any(tmp_path.iterdir())

def test_no_first_labels_are_no_ids():
    y = np.arange(6) % 2
    assert len(initial_ids(y, np.arange(6), 0)) == len(initial_ids(y, np.arange(6), 0, balanced=True)) == 0

@pytest.mark.parametrize('ratio', [1, 2, 10, 500])
def test_a_tail_has_its_ratio(ratio):
    data = features(3000, 4)
    sizes = np.bincount(of.long_tail(data, ratio).y, minlength=4)
    assert sizes[0] == 750 and sizes[-1] == round(750/ratio)
    steps = sizes[:-1]/np.maximum(sizes[1:], 1)
    assert ratio > 100 or np.allclose(steps, ratio**(1/3), rtol=.1)

def test_a_tail_keeps_rows_and_test_images():
    data = features(300, 3)
    tail = of.long_tail(data, 10)
    rows = [i for i in range(300) if (data.x[i] == tail.x).all(1).any()]
    assert torch.equal(data.x[rows], tail.x) and (data.y[rows] == tail.y).all() and torch.equal(tail.x_test, data.x_test)

def test_one_class_has_no_tail():
    data = features(30, 1)
    assert len(of.long_tail(data, 100).x) == 30

@pytest.mark.parametrize('share', [0, .1, .5, 1])
def test_so_many_labels_are_wrong(share):
    data = features(400, 5)
    wrong = of.with_wrong_labels(data, share)
    assert (wrong.y != data.y).sum() == round(400*share) and set(wrong.y) <= set(range(5))
    assert (of.with_wrong_labels(data, share).y == wrong.y).all() and torch.equal(wrong.x, data.x)

@pytest.mark.parametrize('bad', [dict(share=-.1), dict(share=1.1), dict(share=float('nan')), dict(seed=-1)])
def test_what_is_no_share_is_refused(bad):
    with pytest.raises(ValueError): of.with_wrong_labels(features(20), **bad)

@pytest.mark.parametrize('ratio', [.5, 0, float('nan'), 'many'])
def test_what_is_no_ratio_is_refused(ratio):
    with pytest.raises(ValueError, match='`ratio`'): of.long_tail(features(20), ratio)

def test_each_experiment_changes_one_field():
    for name in sorted(of.FACTORS.keys() & PROTOCOLS.keys()):
        base = PROTOCOLS['learned_2b' if '2b' in name else 'learned_4']
        apart = {k for k,v in vars(PROTOCOLS[name]).items() if v != getattr(base, k)} - {'n_val'}
        learners = {METHODS[m].learner for m in LINEUPS[name]}
        assert len(apart) + (learners != {'linear'}) <= 1, name

@pytest.mark.parametrize('name', sorted(of.FACTORS.keys() - PROTOCOLS.keys()))
def test_photographs_are_what_the_page_says(name):
    "Runs on a file of embeddings: the start of an experiment of ours, with a validation set of a tenth."
    base, runs = PROTOCOLS[name.partition('-')[0]], read_results(ROOT/'results'/name)
    for p in runs.protocol:
        apart = {k for k,v in vars(base).items() if p[k] != (list(v) if isinstance(v, tuple) else v)}
        assert apart <= {'dataset', 'n_val', 'sampler', 'rounds'} and p['dataset'].startswith('cifar10_lite0@')
    assert set(runs.method) == {f'linear_{o}' for o in few} and runs.seed.isin(SEEDS).all()
