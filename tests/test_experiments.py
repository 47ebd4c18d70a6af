"What is read from logs, drawn from them, and said while they grow."
import re
from dataclasses import asdict, replace
import numpy as np, pandas as pd, pytest, torch
from scipy import stats
from m2vaal_nb import cli, experiments
from m2vaal_nb.experiments import *
from m2vaal_nb.loop import LEARNERS, read_log
from m2vaal_nb.samplers import SAMPLERS

SMALL = dict(n_init=20, budget=8, max_labels=44, rounds=1, steps=2, batch=8, n_val=50)

@pytest.fixture(scope='module')
def logs(few, tmp_path_factory):
    "Three methods, two seeds, and what was said."
    folder, said = tmp_path_factory.mktemp('results')/'demo', []
    run_grid(plan('demo', ['random', 'm2_vaal', 'algorithm_2'], [0, 1], **SMALL), folder, 'cpu', said.append, few)
    return folder, said

def test_progress_counts_every_round_and_estimates_the_rest(logs):
    said = logs[1]
    assert len(said) == 12
    for i,s in enumerate(said): assert re.match(rf'\[ *{i+1}/12\] \w+, seed [01], round [01]: \d+ labels, test accuracy [\d.]+%', s)
    assert all('left' in s for s in said[:-1]) and 'left' not in said[-1]

def test_the_last_of_two_workers_has_its_own_time_to_go():
    jobs = plan('demo', ['random', 'vaal'], [0], **SMALL)
    said = []
    tell = Progress(jobs, {('random', 0): 0, ('vaal', 0): 0}, said.append, workers=2)
    line = dict(seed=0, round=0, n_labelled=20, test_acc=.5)
    tell(dict(line, method='random', timing=dict(train=8., score=2.)))
    assert 'about 1 min 50 s left' in said[-1]                 # two rounds of vaal at 5.5 times 10 s, one after the other: no less
    assert [duration(s) for s in (3, 61, 3600*2+120)] == ['3 s', '1 min 01 s', '2 h 02 min']

def test_a_shared_round_0_changes_no_log(logs, few, tmp_path):
    "random and margin of one seed share a training; alone they log the same."
    jobs = plan('demo', ['random', 'margin'], [0], **SMALL)
    run_grid(jobs, tmp_path/'together', 'cpu', lambda s: None, few)
    for job in jobs: run_grid([job], tmp_path/'alone', 'cpu', lambda s: None, few)
    without = lambda d, m: [{k: v for k,v in l.items() if k != 'timing'} for l in read_log(tmp_path/d/f'{m}-0.jsonl')]
    for m in ('random', 'margin'): assert without('together', m) == without('alone', m)
    assert read_log(tmp_path/'together/margin-0.jsonl')[0]['timing']['train'] < .2*read_log(tmp_path/'alone/margin-0.jsonl')[0]['timing']['train']

def test_table_and_band_are_those_of_numpy_and_scipy(logs):
    runs = read_results(logs[0])
    acc = runs[(runs.method == 'random') & (runs.n_labelled == 28)].test_acc.to_numpy()
    assert accuracy_table(runs).loc['random', 28] == f'{100*np.mean(acc):.1f} ± {100*np.std(acc, ddof=1):.1f} (2)'
    assert list(accuracy_table(runs).index) == [m for m in METHODS if m in set(runs.method)]
    b, x = band(pd.Series([.1, .2, .4])), [.1, .2, .4]
    low, high = stats.t.interval(.95, 2, np.mean(x), stats.sem(x))
    assert np.allclose([b['mean'] - b.half, b['mean'] + b.half], [low, high])

def test_curves_show_what_the_table_says(logs):
    runs = read_results(logs[0])
    ax = plot_curves(runs, 'A title').axes[0]
    drawn = {l.get_label().split()[0]: l.get_xydata() for l in ax.lines}
    assert set(drawn) == set(runs.method) and ax.get_title() == 'A title' and ax.get_xlabel() and ax.get_ylabel() and ax.get_legend()
    for m,xy in drawn.items(): assert np.allclose(xy[:,1], 100*runs[runs.method == m].groupby('n_labelled').test_acc.mean())

def test_revisit_brings_back_the_very_query(logs, few):
    for method in ('m2_vaal', 'algorithm_2'):
        path = logs[0]/f'{method}-1.jsonl'
        line = read_log(path)[0]
        nets, learner, pool, view = revisit(path, 0, 'cpu', few)
        assert SAMPLERS[line['protocol']['sampler']](view, 8).tolist() == line['queried'] and pool.labelled.tolist() == line['initial']
        drawn, guess = reconstruct(nets, learner, few.x_test[:5])
        fig = show_reconstructions(drawn, guess, few.x_test[:5], few.y_test[:5], few.classes, ncols=5)
        assert [a.get_title() for a in fig.axes] == [few.classes[y] for y in (*guess, *few.y_test[:5])]
        for picks in ([], line['queried'][:1], line['queried']):
            fig = latent_map(view, picks, pool)
            assert len(fig.axes[0].collections) == (3 if len(picks) else 2)
            assert [len(ax.images) for ax in fig.axes[1:]] == [1]*min(8, len(picks)) + [0]*max(0, 8 - len(picks))

def test_commands_from_end_to_end(few, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments, 'dataset', lambda name: few)
    monkeypatch.setitem(PROTOCOLS, 'demo', replace(PROTOCOLS['demo'], **SMALL, init_classes=()))
    monkeypatch.setattr(experiments, 'n_workers', lambda *_: 1)
    out = str(tmp_path/'out')
    cli.m2vaal_run.__wrapped__('demo', 'random,vaal', '0,1', out=out)
    cli.m2vaal_demo.__wrapped__(out)
    said = capsys.readouterr().out
    assert '[  8/8]' in said and '4 of 10 rounds were there already: going on from them.' in said and 'm2_vaal_no_adv' in said
    cli.m2vaal_demo.__wrapped__(out)
    assert '10 of 10 rounds were there already: nothing is left to do.' in capsys.readouterr().out
    cli.m2vaal_figures.__wrapped__(out, str(tmp_path/'figures'))
    assert 'demo: ' in capsys.readouterr().out and (tmp_path/'figures/demo.png').stat().st_size > 10_000 and (tmp_path/'out/demo.png').exists()

def test_lockstep_makes_the_same_first_queries(logs, few, tmp_path):
    "Beyond the first rounds single precision may tell lockstep from separate runs; two short ones it does not."
    jobs = plan('demo', ['random', 'm2_vaal', 'm2_vaal_no_adv', 'm2_random'], [0, 1], **SMALL)
    run_grid(jobs, tmp_path/'lockstep', 'cpu', lambda s: None, few, 'lockstep')
    run_grid(jobs, tmp_path/'alone', 'cpu', lambda s: None, few)
    for log in (tmp_path/'alone').glob('*.jsonl'):
        assert [l['queried'] for l in read_log(log)] == [l['queried'] for l in read_log(tmp_path/'lockstep'/log.name)]

def test_workers_asked_for():
    jobs = plan('fig2b')
    assert n_workers(3, jobs, 'cpu') == 3 and n_workers(99, jobs, 'cpu') == len(jobs) and n_workers('auto', jobs, 'cpu') >= 1 and n_workers('auto', jobs[:1], 'cpu') == 1 and n_workers('lockstep', jobs, 'cpu') == 0
    for bad in (0, -1, 1.5, 'many', True, None):
        with pytest.raises(ValueError, match="allowed are 'auto'"): n_workers(bad, jobs, 'cpu')
