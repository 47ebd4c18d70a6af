"What is read from logs, drawn from them, and said while they grow."
import itertools, json, re, shutil, sys, time
from dataclasses import asdict, replace
from functools import partial
import numpy as np, pandas as pd, pytest, torch
from conftest import ROOT
from scipy import stats
from m2vaal_nb import cli, experiments
from m2vaal_nb.paper import fig3, report, statistics, why
from m2vaal_nb.data import CLASSES
from m2vaal_nb.experiments import (
    LINEUPS, METHODS, PROTOCOLS, Progress, accuracy_table, band, drawn, methods_in,
    one_by_one, plan, plot_curves, read_results, run_grid, sweep_table, tell)
from m2vaal_nb.foundations.display import duration
from m2vaal_nb.paper.fig3 import reconstruct, show_reconstructions
from m2vaal_nb.paper.pictures import latent_map
from m2vaal_nb.paper.revisit import revisit, rewind
from m2vaal_nb.foundations.log import read_log
from m2vaal_nb.loop import Job, run
from m2vaal_nb.foundations.machine import n_cores
from m2vaal_nb.scale.cluster import on_ray
from m2vaal_nb.scale.lockstep import in_lockstep
from m2vaal_nb.scale.own_sampler import FileSampler
from m2vaal_nb.scale.workers import on_workers
from m2vaal_nb.losses import LEARNERS
from m2vaal_nb.samplers import SAMPLERS

SMALL = dict(n_init=20, budget=8, max_labels=44, rounds=1, steps=2, batch=8, n_val=50)

def go(jobs, folder, few, engine=one_by_one, say=lambda s: None):
    return run_grid(jobs, folder, engine, 'cpu', few, say)

@pytest.fixture(scope='module')
def logs(few, tmp_path_factory):
    "Three methods, two seeds, and what was said."
    folder, said = tmp_path_factory.mktemp('results')/'demo', []
    go(plan('demo', ['random', 'm2_vaal', 'algorithm_2'], [0, 1], **SMALL), folder, few, say=said.append)
    return folder, said

def test_progress_counts_every_round_and_estimates_the_rest(logs):
    said = logs[1]
    assert len(said) == 12
    for i,s in enumerate(said): assert re.match(rf'\[ *{i+1}/12\] \w+, seed [01], round [01]: \d+ labels, test accuracy [\d.]+%', s)
    assert all('left' in s for s in said[:-1]) and 'left' not in said[-1]

def test_the_last_of_two_workers_has_its_own_time_to_go():
    said = []
    there = dict.fromkeys(plan('demo', ['random', 'vaal'], [0], **SMALL), 0)
    progress = Progress(there, dict(classifier=.01, vaal=.055), said.append, at_once=2)
    line = dict(seed=0, round=0, n_labelled=20, test_acc=.5)
    tell(progress, dict(line, method='random', timing=dict(train=8., score=2.)))
    assert 'about 1 min 50 s left' in said[-1]                 # two rounds of vaal at 5.5 times 10 s, one after the other: no less
    assert [duration(s) for s in (3, 61, 3600*2+120)] == ['3 s', '1 min 01 s', '2 h 02 min']

def test_no_time_is_told_where_nobody_knows_how_many_runs_go_at_once(few, tmp_path):
    "A cluster may have more cores than this machine, and grow."
    said = []
    go(plan('demo', ['random'], [0], **SMALL), tmp_path, few, replace(one_by_one, at_once=None), said.append)
    assert len(said) == 2 and not any('left' in s for s in said)
    assert on_ray('ray://head:10001').at_once is None and on_ray().at_once == n_cores()

def test_a_shared_round_0_changes_no_log(logs, few, tmp_path):
    "random and margin of one seed share a training; alone they log the same."
    jobs = plan('demo', ['random', 'margin'], [0], **SMALL)
    go(jobs, tmp_path/'together', few)
    for job in jobs: go([job], tmp_path/'alone', few)
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
    shown = {l.get_label().split(' (')[0]: l.get_xydata() for l in ax.lines}
    assert set(shown) == {METHODS[m].name for m in runs.method} and ax.get_title() == 'A title'
    assert ax.get_xlabel() and ax.get_ylabel() and ax.get_legend()
    for m in set(runs.method):
        xy = shown[METHODS[m].name]
        assert np.allclose(xy[:,1], 100*runs[runs.method == m].groupby('n_labelled').test_acc.mean())

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
            fig = latent_map(view, picks, pool.x)
            assert len(fig.axes[0].collections) == (3 if len(picks) else 2)
            assert [len(ax.images) for ax in fig.axes[1:]] == [1]*min(8, len(picks)) + [0]*max(0, 8 - len(picks))

def test_commands_from_end_to_end(few, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments, 'dataset', lambda name: few)
    monkeypatch.setitem(PROTOCOLS, 'demo', replace(PROTOCOLS['demo'], **SMALL, init_classes=()))
    monkeypatch.setattr(cli, 'engine_for', lambda *_: one_by_one)
    monkeypatch.setitem(sys.modules, 'm2vaal_nb.interop.tensorboard', None)          # not imported: nobody asked for TensorBoard
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
    go(jobs, tmp_path/'lockstep', few, in_lockstep())
    go(jobs, tmp_path/'alone', few)
    for log in (tmp_path/'alone').glob('*.jsonl'):
        assert [l['queried'] for l in read_log(log)] == [l['queried'] for l in read_log(tmp_path/'lockstep'/log.name)]

@pytest.mark.parametrize('word, n, at_once', [('3', 8, 3), ('99', 8, 8), ('3', 1, 1), ('1', 8, 1), ('lockstep', 8, 1)])
def test_words_of_the_shell_are_engines(word, n, at_once):
    engine = cli.engine_for(word, plan('demo')[:1]*n, 'cpu')
    assert engine.at_once == at_once and (engine is one_by_one) == (at_once == 1 and word != 'lockstep')

def test_engines_asked_for():
    job, *_ = plan('demo')
    assert 1 <= cli.engine_for('auto', [job]*99, 'cpu').at_once <= 99 and cli.engine_for('auto', [job], 'cpu') is one_by_one
    for bad in (0, -1, 1.5, 'many', True, None):
        with pytest.raises(ValueError, match='an integer of them, at least 1'): on_workers(bad)
    with pytest.raises(ValueError, match='share one dataset'): run_grid([*plan('fig2b'), *plan('mnist')], 'nowhere')
    with pytest.raises(ValueError, match='give one_by_one'): run_grid(plan('fig2b'), 'nowhere', 'cpu')
    with pytest.raises(ValueError, match='share one dataset'): run_grid([], 'nowhere')

def test_what_does_not_fit_is_found_before_anything_runs(few, tmp_path):
    blind = Job(replace(plan('demo', ['random'], **SMALL)[0].protocol, sampler='discriminator'), 'blind', 0)
    with pytest.raises(ValueError, match='does not reveal `d_N`'): go([*plan('demo', **SMALL), blind], tmp_path/'x', few)
    assert not (tmp_path/'x').exists()

# --- methods ---
def lab(colour):
    "CIE Lab, in which distances are those that people see."
    c = np.array([int(colour[i:i+2], 16) for i in (1, 3, 5)])/255
    c = np.where(c > .04045, ((c + .055)/1.055)**2.4, c/12.92)
    xyz = np.array([[.4124, .3576, .1805], [.2126, .7152, .0722], [.0193, .1192, .9505]])@c/[.95047, 1, 1.08883]
    x, y, z = np.where(xyz > .008856, np.cbrt(xyz), 7.787*xyz + 16/116)
    return np.array([116*y - 16, 500*(x - y), 200*(y - z)])

@pytest.mark.parametrize('name', LINEUPS)
def test_no_two_methods_of_a_figure_share_a_colour(name):
    colours = [m.colour for m in drawn([*LINEUPS[name], 'mine', 'yours']).values()]
    for a,b in itertools.combinations(colours, 2): assert np.linalg.norm(lab(a) - lab(b)) > 20

def test_every_colour_is_seen_on_white_and_on_black():
    for m in drawn([*METHODS, 'mine', 'yours', 'theirs', 'else']).values(): assert 40 < lab(m.colour)[0] < 80

def test_methods_name_what_exists():
    for m in METHODS.values(): assert m.learner in LEARNERS and m.sampler in SAMPLERS
    assert {slug for lineup in LINEUPS.values() for slug in lineup} <= set(METHODS)
    assert PROTOCOLS.keys() == LINEUPS.keys()

# --- logs of other people, damaged and unfinished ---
def test_class_names_are_those_of_the_datasets(few):
    from torchvision import datasets
    assert CLASSES['fashion_mnist'] == few.classes == tuple(datasets.FashionMNIST.classes) and CLASSES['mnist'] == tuple(datasets.MNIST.classes)
    assert CLASSES['cifar10'][0] == 'airplane' and len(set(CLASSES['cifar10'])) == 10

@pytest.fixture
def mixed(logs, few, tmp_path, monkeypatch):
    "Results with a folder of ours, in which a method was registered elsewhere, and a damaged one."
    folder = shutil.copytree(logs[0].parent, tmp_path/'mixed')
    with monkeypatch.context() as m:
        m.setitem(SAMPLERS, 'ratio', SAMPLERS['margin'])
        p = plan('demo', ['random'], **SMALL)[0].protocol
        list(run(Job(replace(p, sampler='ratio'), 'm2_ratio', 0), folder/'demo', 'cpu', few))
    (folder/'bad').mkdir()
    (folder/'bad/random-0.jsonl').write_text('nonsense\n')
    return folder

def test_methods_registered_elsewhere_are_read_and_drawn(mixed):
    runs = read_results(mixed/'demo')
    assert 'ratio' not in SAMPLERS and methods_in(runs) == [*(m for m in METHODS if m in set(runs.method)), 'm2_ratio'] == list(accuracy_table(runs).index)
    lines = plot_curves(runs).axes[0].lines
    assert 'm2_ratio' in {l.get_label().split()[0] for l in lines} and len({l.get_color() for l in lines}) == len(lines)
    with pytest.raises(ValueError, match="Unknown sampler 'ratio'"): rewind(mixed/'demo/m2_ratio-0.jsonl', 0)       # here its meaning is needed

def test_figures_need_no_images_and_outlive_a_bad_folder(mixed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('M2VAAL_DATA', str(tmp_path/'nowhere'))
    experiments.dataset.cache_clear()
    cli.m2vaal_figures.__wrapped__(str(mixed), str(tmp_path/'figures'))
    out, err = capsys.readouterr()
    assert err.count('\n') == 1 and err.startswith('m2vaal_figures: Left out, bad: ') and 'line 1 is not the record of round 0' in err
    assert 'm2_ratio' in out and {f'demo{o}.png' for o in ('', '_classes', '_wrong')} <= {o.name for o in (tmp_path/'figures').iterdir()}

def test_claims_that_cannot_be_judged_do_not_undo_the_figures(mixed, tmp_path, capsys):
    (mixed/'bad').rename(mixed/'fig2b')
    cli.m2vaal_figures.__wrapped__(str(mixed), str(tmp_path/'figures'))
    assert [l.split(':')[1] for l in capsys.readouterr().err.splitlines()] == [' Left out, fig2b', ' The claims are not judged']

def test_of_a_sweep_finished_runs_count(few, tmp_path):
    for setting,methods in {'base': ['random', 'vaal'], 'beta-10.0': ['vaal']}.items():
        go(plan('demo', methods, [0, 1], **SMALL), tmp_path/'sensitivity'/setting, few)
    log = tmp_path/'sensitivity/base/vaal-1.jsonl'
    log.write_text(log.read_text().splitlines(True)[0])
    runs = report.read_logs(tmp_path)[1]['sensitivity']
    assert runs.groupby(['setting', 'method']).seed.nunique().to_dict() == {('base', 'random'): 2, ('base', 'vaal'): 1, ('beta-10.0', 'vaal'): 2}
    assert report.of_sweep('sensitivity', runs)[0] and sweep_table(runs).loc['base', 'vaal'].endswith('(1)')
    shutil.rmtree(tmp_path/'sensitivity/base')
    (_, fig, table), = report.figures(tmp_path)
    assert fig is None and list(table.index) == ['beta-10.0'] and table.vaal.iloc[0].endswith('(2)')

def test_every_sweep_has_a_table(tmp_path, capsys):
    for name in ('stability', 'tuning_alpha'): shutil.copytree(f'{ROOT}/results/{name}', tmp_path/name)
    assert [(name, path) for name,path,table in report.make_figures(tmp_path, tmp_path/'figures') if len(table)] == [('stability', None), ('tuning_alpha', None)]

def of_classes(made): return next(table for name,table in made.items() if 'accuracy of classes in percent' in name)

def test_figures_by_class_and_against_any_method(few, tmp_path, capsys):
    names = [f'kind {c} of a thing with a long name' for c in range(10)]
    go(plan('demo', ['random', 'margin', 'entropy'], [0, 1], **SMALL), tmp_path/'mine', replace(few, classes=names))
    shutil.copytree(f'{ROOT}/results/demo', tmp_path/'demo')                # from before classes were logged
    with pytest.warns(UserWarning, match='Left out, demo: Nothing can be balanced: accuracies of classes were not logged yet by 5 runs, such as '):
        made = {name: table for name,_,table in report.make_figures(tmp_path, tmp_path/'figures', 'margin', by_class=True)}
    assert 'mine_balanced' in made and not any('demo' in name or name in ('mine_wrong', 'mine_classes') for name in made)
    runs, over = read_results(tmp_path/'mine'), next(t for name,t in made.items() if 'ahead of margin' in name)
    last = runs[runs.n_labelled == runs.n_labelled.max()]
    of_class = pd.DataFrame(last.test_class_acc.tolist(), index=last.method, dtype=float)
    table = of_classes(made)
    heads = [f'{name} ({n})' for name,n in zip(names, np.bincount(few.y_test, minlength=10))]
    assert list(table.columns) == ['balanced', *heads] and set(over.of.dropna()) == {'margin'}
    assert np.allclose(table.loc[['random', 'margin'], heads], 100*of_class.groupby(level=0).mean().loc[['random', 'margin']], atol=.06)
    assert np.allclose(table.balanced, table[heads].mean(axis=1), atol=.06)
    cli.m2vaal_figures.__wrapped__(str(tmp_path), against='margin')
    out = capsys.readouterr().out
    assert 'demo, accuracy in percent' in out and out.count('ahead of margin') == 2 and 'mine_by_class.png' in out
    with pytest.raises(SystemExit): cli.m2vaal_figures.__wrapped__(str(tmp_path), against='typiclust')
    assert "Unknown method 'typiclust'" in capsys.readouterr().err
    log = tmp_path/'mine/margin-0.jsonl'
    log.write_text(log.read_text().splitlines(True)[0])                     # it is still running
    cli.m2vaal_figures.__wrapped__(str(tmp_path), against='margin')
    out = capsys.readouterr().out
    assert '1 of 6 runs have come less far and are left out; ' in out and 'ahead of margin, of one seed, which may be chance' in out
    assert re.search('; [0-9]+ test images leave each accuracy uncertain by up to [0-9]+ points', out)
    (tmp_path/'mine/margin-1.jsonl').unlink()
    cli.m2vaal_figures.__wrapped__(str(tmp_path), against='margin')
    assert 'ahead of random picks, of two seeds, too few to decide' in capsys.readouterr().out
    with pytest.raises(SystemExit): cli.m2vaal_figures.__wrapped__(str(tmp_path/'demo'), balanced=True)
    assert 'holds no logs with accuracies of classes' in capsys.readouterr().err

@pytest.mark.parametrize('names', [['balanced']*2, ['$\\x$', '$5', 'a'*60], [f'{i}' for i in range(40)]])
def test_class_names_of_any_kind_are_drawn(few, tmp_path, names):
    few = replace(few, classes=names, y=few.y % len(names), y_test=few.y_test*0)
    go(plan('demo', ['random', 'margin'], [0], **SMALL | dict(init_classes=(0, 1))), tmp_path/'mine', few)
    made = {name: table for name,_,table in report.make_figures(tmp_path, tmp_path/'figures')}
    table = of_classes(made)
    assert table.shape == (2, 1 + min(12, len(names))) and table.iloc[:,0].notna().all()

def test_old_logs_beside_new_ones(few, tmp_path):
    "Of a run that was begun before classes were logged, the curve is drawn, and its last round shows its classes; balanced it is left out."
    go(plan('demo', ['random', 'margin'], [0], **SMALL), tmp_path/'mine', few)
    log = tmp_path/'mine/margin-0.jsonl'
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for k in ('test_class_acc', 'classes'): del lines[0][k]
    del lines[0]['protocol']['init_balanced']                                # nor was this field
    log.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    made = {name: table for name,_,table in report.make_figures(tmp_path, tmp_path/'figures')}
    assert list(of_classes(made).index) == ['random', 'margin'] and list(made['mine'].index) == ['random', 'margin']
    with pytest.warns(UserWarning, match='by 1 runs, such as margin, seed 0'):
        made = {name: table for name,_,table in report.make_figures(tmp_path, tmp_path/'figures', by_class=True)}
    assert list(made['mine_balanced'].index) == ['random']

@pytest.mark.parametrize('n', [12, 13, 25, 26, 40, 41, 300])
def test_figures_of_many_classes(n):
    names = [f'class {c}' for c in range(n)]
    table = pd.DataFrame(np.linspace(0, 100, 2*n).reshape(2, n), ['random', 'margin'], names)
    table.insert(0, 'balanced', 50.)
    of_all, ax, *_ = report.plot_by_class(table).axes
    assert len(ax.get_xticks()) <= 40 and len(ax.texts) == (2*n if n <= 25 else 0) and ax.get_xticklabels()[0].get_text() == 'class 0'
    assert [text.get_text() for text in of_all.texts] == ['50', '50'] and of_all.get_window_extent().width > 10
    rows = [dict(method='random', seed=0, round=0, queried=[*range(n)], queried_classes=[1]*n)]
    assert len(why.plot_classes(pd.DataFrame(rows), names).axes[0].get_xticks()) <= 12

def test_lockstep_shares_its_time_out(few, tmp_path):
    jobs, started = plan('demo', ['random', 'margin', 'entropy'], [0, 1], **{**SMALL, 'rounds': None, 'steps': 20}), time.perf_counter()
    go(jobs, tmp_path, few, in_lockstep())
    assert sum(sum(line['timing'].values()) for log in tmp_path.glob('*.jsonl') for line in read_log(log)) < time.perf_counter() - started

def test_a_probe_that_is_interrupted_promises_nothing(tmp_path, monkeypatch, capsys):
    def interrupt(*_): raise KeyboardInterrupt
    monkeypatch.setattr(fig3, 'probe_fig3', interrupt)
    with pytest.raises(SystemExit, match='130'): cli.m2vaal_probe.__wrapped__(str(tmp_path))
    assert 'measures everything again' in capsys.readouterr().err

# --- what methods there are ---
class Called:
    "An object that is called."
    def __call__(self, view, budget): return view.ids[:budget]

def said_by_itself(view, budget):
    """Pick the first.

    And more."""
    return view.ids[:budget]

KINDS_OF_SAMPLERS = { # what it is: (sampler, what is said of it)
    'a function': (said_by_itself, 'Pick the first.'), 'a function without a docstring': (lambda view, budget: view.ids[:budget], ''),
    'part of one': (partial(said_by_itself, budget=3), 'Pick the first.'), 'part of a part': (partial(partial(said_by_itself), budget=3), 'Pick the first.'),
    'an object': (Called(), 'Called'), 'a file': (FileSampler('my.py', b'', 'ratio'), 'my.py:ratio')}

@pytest.mark.parametrize('what', KINDS_OF_SAMPLERS)
def test_methods_are_listed_whatever_their_sampler_is(what, monkeypatch, capsys):
    "One that says nothing, and a learner that says nothing, are listed too."
    sampler, says = KINDS_OF_SAMPLERS[what]
    monkeypatch.setitem(SAMPLERS, 'mine', sampler)
    monkeypatch.setitem(LEARNERS, 'silent', replace(LEARNERS['classifier'], says=''))
    for slug,learner in dict(mine='classifier', quiet='silent').items(): monkeypatch.setitem(METHODS, slug, experiments.Method(slug, learner, 'mine'))
    table = experiments.methods_table('images')
    assert table.picks['mine'] == table.picks['quiet'] == says and (table.learns['mine'], table.learns['quiet']) == (LEARNERS['classifier'].says, '')
    cli.m2vaal_methods('images')
    lines = capsys.readouterr().out.splitlines()
    assert f'  {"mine":31} {says}' in lines and 'On images, silent: ' in lines

def test_a_method_whose_learner_or_sampler_is_not_there(monkeypatch):
    for wrong in ('no_such_learner', 'random'), ('classifier', 'no_such_sampler'):
        monkeypatch.setitem(METHODS, 'mine', experiments.Method('mine', *wrong))
        with pytest.raises(ValueError, match='no_such'): experiments.methods_table()

def made_up(areas, seeds=None):
    "Runs of two rounds, flat curves: a method's accuracy by seed."
    rows = [(m, seed, n, a) for m,values in areas.items() for seed,a in zip((seeds or {}).get(m, range(len(values))), values) for n in (10, 20)]
    return pd.DataFrame(rows, columns=['method', 'seed', 'n_labelled', 'test_acc'])

def test_which_is_best_in_words():
    low, high, alike = [.50, .51, .52, .53, .54], [.70, .712, .719, .731, .74], [.72, .70, .73, .70, .745]
    by = 'by accuracy over the budget'
    said = lambda **how: report.which_is_best(made_up(**how))
    assert said(areas=dict(a=low, b=high)) == f'the best of 2 methods {by}: b (95% sure, as far as seeds go)'
    lead = 'to see a lead of half a point takes {} seeds in all'.format
    assert said(areas=dict(a=low, b=high, c=alike)) == f'the best of 3 methods {by} is one of b, c (95% sure, as far as seeds go); {lead("about 130")}'
    assert said(areas=dict(b=high, c=alike)) == f'which is best of 2 methods {by}: these seeds cannot tell; {lead("about 100")}'
    assert said(areas=dict(b=high, c=high)) == f'which is best of 2 methods {by}: these seeds cannot tell; a lead of half a point would most likely have been seen'
    wide = [.9, .5, .9, .5, .8]
    assert said(areas=dict(b=high, c=wide)).endswith(lead('more than 1,000'))
    for areas in dict(a=low), dict(a=low[:4], b=high[:4]), dict(a=low, b=high[:4]): assert said(areas=areas) is None
    for seeds in [5, 6, 7, 8, 9], [1, 2, 3, 4, 5]: assert said(areas=dict(a=low, b=high), seeds=dict(b=seeds)) is None
    few = said(areas=dict(a=low, b=high, c=[.9, .91], d=[.1]*4))
    assert few == f'the best of 2 methods {by}: b (95% sure, as far as seeds go; too few seeds to judge c, d)'

@pytest.mark.parametrize('lead, others', [(.4, 1), (1.2, 1), (.6, 3)])
def test_so_many_seeds_show_the_best(lead, others):
    "By simulation: with the number that is said, the first is seen ahead of all others in four experiments of five."
    g = np.random.default_rng(0)
    def world(n): return pd.DataFrame(.5 + .01*g.normal(size=(n, others + 1)) + np.eye(others + 1)[0]*lead/100)
    n = statistics.seeds_needed(world(4000), [*range(others + 1)], lead)
    alone = [statistics.unbeaten(world(n)) == [0] for _ in range(400)]
    assert n > statistics.LEAST_SEEDS and .74 < np.mean(alone) < .92       # others go together: rather more than four

def test_seeds_that_are_needed_at_the_edges():
    same = pd.DataFrame(dict(a=[.7]*5, b=[.5]*5))
    assert statistics.seeds_needed(same, ['a', 'b']) == statistics.LEAST_SEEDS                       # no scatter at all
    assert statistics.seeds_needed(same.assign(b=[.5] + [np.nan]*4), ['a', 'b']) is None             # one pair: no scatter known
    scattered = same.assign(b=[.5, .6, .7, .5, .6])
    most = statistics.seeds_needed(scattered, ['a', 'b'], lead=10)
    assert statistics.seeds_needed(scattered, ['a', 'b'], lead=10, most=most) == most
    assert statistics.seeds_needed(scattered, ['a', 'b'], lead=10, most=most - 1) is None

def test_methods_that_beat_each_other_in_a_circle_leave_nobody():
    rows = [dict(a=.5, b=.6), dict(b=.5, c=.6), dict(c=.5, a=.6)]          # of other seeds each
    area = pd.DataFrame([{m: v + (i//3)*1e-3*j for j,(m,v) in enumerate(rows[i % 3].items())} for i in range(15)])
    assert statistics.unbeaten(area) == []

@pytest.mark.parametrize('ahead', [0, .01])
def test_the_best_is_kept_among_the_unbeaten(ahead):
    "With the true best ahead by a standard deviation of its area, or by nothing, it is missing in at most 5% of worlds."
    n, worlds = 150, np.random.default_rng(1).normal(.8, .01, (150, 5, 4)) + np.eye(4)[0]*ahead
    assert sum(0 not in statistics.unbeaten(pd.DataFrame(x)) for x in worlds) <= n*.05 + 2*(n*.05*.95)**.5

def test_figures_say_which_is_best_where_five_seeds_are_there(tmp_path, capsys):
    for m,n in dict(random=5, vaal=5, margin=4).items():
        for seed in range(n):
            to = tmp_path/f'mine/{m}-{seed}.jsonl'
            to.parent.mkdir(exist_ok=True)
            shutil.copy(f'{ROOT}/results/fig2b/{m}-{seed}.jsonl', to)
    cli.m2vaal_figures.__wrapped__(str(tmp_path))
    out = capsys.readouterr().out
    assert 'mine, the best of 2 methods by accuracy over the budget: random (95% sure, as far as seeds go; too few seeds to judge margin)' in out
    assert 'over 500 to 2000 labels, and in the end, at 2000; ' in out and 'end_ahead' in out
    assert '; methods have different seeds, so look at what is ahead' in out
