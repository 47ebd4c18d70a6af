"One's own sampler and one's own images beside the paper's: from the shell, on workers, from any folder."
import hashlib, inspect, os, re, shutil, signal, subprocess, sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
from torchvision.transforms.v2.functional import to_pil_image
from m2vaal_nb import cli, experiments
from m2vaal_nb.beyond import one_factor # the wing's experiments, before a test begins
from m2vaal_nb.data import DATASETS, Dataset, PoolView, held_out, judged_by
from m2vaal_nb.experiments import METHODS, Method, read_results
from m2vaal_nb.beyond.declared import few as few_samplers
from m2vaal_nb.beyond.representation import embed
from m2vaal_nb.foundations.log import read_log
from m2vaal_nb.loop import Job, Protocol, run, start_pool
from m2vaal_nb.own_images.labelled_folder import (
    embeddings_dataset, folder_dataset, is_embeddings, numbers_of, representation_of)
from m2vaal_nb.samplers import SAMPLERS
from m2vaal_nb.scale.own_sampler import FileSampler, take_method, take_sampler

RATIO = '''from helpers import relative

def ratio(view, budget):
    "Query where the second class is most probable, relative to the first."
    return view.top(relative(view.need('p_N_C')), budget)
'''
HELPERS = '''def relative(p_N_C):
    first, second = p_N_C.topk(2).values.unbind(-1)
    return second/first
'''
MINE = 'mine=classifier+my.py:ratio'
by_words = dict(ids=lambda d: ' '.join(f'{k}={v}' for k,v in d.items()) or 'as it is')

@pytest.fixture(autouse=True)
def forget():
    "What a test takes into the tables is gone after it."
    tables = METHODS, SAMPLERS, DATASETS
    before = [dict(table) for table in tables]
    yield
    for table,old in zip(tables, before):
        table.clear()
        table.update(old)
    sys.modules.pop('helpers', None)

@pytest.fixture
def here(tmp_path, monkeypatch):
    "A folder outside the checkout, with a sampler in a file, and what that imports beside it."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    Path('my.py').write_text(RATIO)
    Path('helpers.py').write_text(HELPERS)
    return tmp_path

@pytest.fixture
def photos(here, few):
    "A folder of labelled images."
    for i,(x,y) in enumerate(zip(few.x[:150], few.y)):
        file = here/'photos'/f'class {y}'/f'{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(x).save(file)
    return here/'photos'

def timeless(path): return [line | dict(timing=None) for line in read_log(path)]
def small(*methods, **options):
    "A run of the folder's images with the shell's function, two rounds."
    cli.m2vaal_run.__wrapped__('fig2b', ','.join(methods), rounds='1', steps='2', dataset='photos', **options)

def refused(capsys, *methods, **options):
    "The sentence that a command ends with; nothing else is said."
    with pytest.raises(SystemExit) as stop: small(*methods, **options)
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and err.count('\n') == 1 and err.startswith('m2vaal_run: ')
    return err

# --- a sampler in a file ---
def test_two_rounds_on_two_workers_are_those_of_one_process(photos, here):
    small('random', MINE, out='two', workers='2')
    small('random', MINE, out='one', workers='1')
    for name in 'random-0.jsonl', 'mine-0.jsonl': assert timeless(Path('two/fig2b-photos')/name) == timeless(Path('one/fig2b-photos')/name)
    line = timeless(Path('two/fig2b-photos/mine-0.jsonl'))[0]
    sha = hashlib.sha256(Path('my.py').read_bytes()).hexdigest()
    assert line['protocol']['sampler'] == f'my.py:ratio@{sha}' and line['protocol']['learner'] == 'classifier'
    assert str(here) not in str(line)

def test_the_command_outside_the_checkout_and_its_figures(photos):
    def shell(*words): return subprocess.run([Path(sys.executable).with_name(words[0]), *words[1:]], capture_output=True, text=True)
    done = shell('m2vaal_run', 'fig2b', '--methods', f'random,{MINE}', '--dataset', 'photos', '--rounds', '1', '--steps', '2', '--workers', '2')
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert 'a fifth of each class and others for each seed, are the test set' in done.stdout and '[  4/4]' in done.stdout
    drawn = shell('m2vaal_figures', '--results', 'out', '--out', 'figures')
    assert drawn.returncode == 0 and 'mine' in drawn.stdout and Path('figures/fig2b-photos.png').stat().st_size > 10_000
    assert 'Section' not in drawn.stdout            # these results say nothing about the paper's claims

@pytest.mark.parametrize('sizes, labels', [
    (dict(n_init='10', budget='7'), [10, 17]), (dict(n_init='3', budget='500', max_labels='12'), [3, 12]),
    (dict(max_labels='28'), [27, 28]), (dict(budget='1'), None)])
def test_sizes_of_ones_own(photos, sizes, labels):
    "What is given counts, and everything else is fitted to the folder."
    small('random', workers='1', out='as it is')
    small('random', workers='1', **sizes)
    fitted, found = ([line['n_labelled'] for line in read_log(Path(out)/'fig2b-photos/random-0.jsonl')] for out in ('as it is', 'out'))
    n = fitted[0]
    assert found == (labels or [n, n + 1])

@pytest.mark.parametrize('n', [301, 4950, 4951])
@pytest.mark.parametrize('n_images, n_test', [(5500, 1), (6875, 0)])
def test_more_labels_than_the_experiment_has(n, n_images, n_test):
    "A large folder has more to label than the 300 that the experiment ends with; all but those that test and validate."
    data = SimpleNamespace(x=np.zeros((n_images, 1)), y=np.zeros(n_images, int), x_test=np.zeros((n_test, 1))) # a tenth validates
    def asked(): return cli.grids_of('fig4', 'random', '0', (None, data), max_labels=n)['fig4'][0].protocol
    if n <= 4950: assert asked().max_labels == n
    else:
        with pytest.raises(ValueError, match='4951 labels are asked for, and 4950 of these images can be labelled'): asked()

@pytest.mark.parametrize('sizes, says', [
    (dict(budget='0'), '`budget` is 0'), (dict(n_init='few'), "--n-init: 'few' is not a whole number"),
    (dict(n_init='0'), 'needs a label to begin'), (dict(n_init='-1'), '`n_init` is -1'),
    (dict(max_labels='5'), '`max_labels` is 5: it must be at least `n_init`'), (dict(max_labels='120'), '120 labels are asked for, and 108 of these images can be labelled'),
    (dict(n_init='109'), '109 labels are asked for')])
def test_sizes_that_cannot_be(photos, sizes, says, capsys):
    with pytest.raises(SystemExit): small('random', workers='1', **sizes)
    err = capsys.readouterr().err
    assert says in err and err.count('\n') == 1 and not [*Path('out').rglob('*.jsonl')]

def test_a_changed_file_is_another_run(photos, capsys):
    small(MINE, workers='1')
    log = Path('out/fig2b-photos/mine-0.jsonl')
    before = log.read_bytes()
    Path('my.py').write_text(RATIO + '# changed\n')
    capsys.readouterr()
    with pytest.raises(SystemExit): small(MINE, workers='1')
    says = capsys.readouterr().err
    assert says.count('\n') == 1 and 'holds another run (sampler is' in says and 'Choose another folder' in says
    assert log.read_bytes() == before
    Path('my.py').write_text(RATIO)
    small(MINE, workers='1')
    assert 'nothing is left to do' in capsys.readouterr().out and log.read_bytes() == before

def test_a_run_that_was_shot_goes_on(photos):
    command = [Path(sys.executable).with_name('m2vaal_run'), 'fig2b', '--methods', MINE, '--dataset', 'photos', '--rounds', '3', '--steps', '30', '--workers', '1']
    going = subprocess.Popen([*command, '--out', 'shot'], stdout=subprocess.PIPE, text=True)
    log = Path('shot/fig2b-photos/mine-0.jsonl')
    while not log.exists() and going.poll() is None: time.sleep(.01)
    going.send_signal(signal.SIGKILL)
    going.communicate()
    done = len(read_log(log))
    for out in 'shot', 'whole': subprocess.run([*command, '--out', out], check=True, capture_output=True)
    assert done < 4 and timeless(log) == timeless(Path('whole/fig2b-photos/mine-0.jsonl'))

def test_what_was_read_is_what_runs(here):
    "A sampler goes to other processes as the file's text, whatever becomes of the file."
    import pickle
    name = take_sampler('my.py:ratio')
    sent = pickle.dumps(SAMPLERS[name])
    Path('my.py').write_text('nonsense (')
    view = PoolView(np.arange(10, 14), p_N_C=torch.tensor([[.9, .1], [.6, .4], [.5, .5], [.7, .3]]))
    assert pickle.loads(sent)(view, 2).tolist() == [12, 11]

CARELESS = """
def relabels(view, budget):
    y = view.need('y_L')
    y[y > 0] = 1
    return view.ids[:budget]
def shuffles(view, budget):
    import numpy as np
    np.random.default_rng(0).shuffle(view.ids)
    return view.ids[:budget]
def sorts(view, budget):
    p = view.need('p_N_C').numpy()
    p.sort(axis=1)
    return view.top(p[:,-2] - p[:,-1], budget)
def neighbours(view, budget):
    from sklearn.neighbors import NearestNeighbors
    d, _ = NearestNeighbors(n_neighbors=20).fit(view.need('p_N_C')).kneighbors()
    return view.top(-d.mean(1), budget)
def every_tenth(view, budget):
    return view.top(-view.need('p_N_C').amax(1), 10*budget)[::10]
def too_few(view, budget): return view.ids[:1]
"""

@pytest.mark.parametrize('name', ['relabels', 'shuffles'])
def test_labels_and_ids_cannot_be_written_into(name, photos, capsys):
    Path('my.py').write_text(CARELESS)
    assert 'read-only' in refused(capsys, f'mine=classifier+my.py:{name}', workers='1')

def test_a_sampler_that_sorts_in_place_changes_no_log(photos):
    Path('my.py').write_text(CARELESS)
    small('margin', 'mine=classifier+my.py:sorts', workers='1')
    ours, theirs = (timeless(Path(f'out/fig2b-photos/{name}-0.jsonl')) for name in ('margin', 'mine'))
    for a,b in zip(ours, theirs): assert a | dict(method='', protocol='') == b | dict(method='', protocol='')

@pytest.mark.parametrize('name', ['neighbours', 'every_tenth'])
def test_a_rehearsal_has_images_enough(name, few, tiny, here, tmp_path):
    from dataclasses import replace
    from m2vaal_nb.loop import dry_run, start_pool
    Path('my.py').write_text(CARELESS)
    p = replace(tiny, sampler=take_sampler(f'my.py:{name}'))
    dry_run(p, start_pool(few, p, 0)[0])

def test_a_rehearsal_says_that_it_was_one(photos, capsys):
    Path('my.py').write_text(CARELESS)
    says = refused(capsys, 'mine=classifier+my.py:too_few', workers='1')
    assert 'but picked int64 of shape (1,)' in says and 'That was a rehearsal before the run' in says

WRONG = { # the file, or None; the method; what the sentence says
    'a file that is not there': (None, 'mine=classifier+your.py:ratio', 'There is no file your.py.'),
    'a folder': (None, 'mine=classifier+photos:ratio', 'There is no file photos.'),
    'no Python': ('def ratio(', MINE, 'my.py cannot be imported: SyntaxError in line 1'),
    'an import that fails': ('import nowhere_at_all', MINE, "my.py cannot be imported: ModuleNotFoundError in line 1: No module named 'nowhere_at_all'"),
    'a file that ends the program': ('raise SystemExit(3)', MINE, 'my.py cannot be imported: SystemExit in line 1'),
    'another function': ('def margin(view, budget): pass', MINE, 'my.py has no function ratio: it has margin.'),
    'no function at all': ('ratio = 3', MINE, 'my.py has no function ratio: it has none.'),
    'one parameter': ('def ratio(view): pass', MINE, 'must take a view and a budget, and takes (view)'),
    'three parameters': ('def ratio(view, budget, more): pass', MINE, 'must take a view and a budget, and takes (view, budget, more)'),
    'rows instead of ids': ('def ratio(view, budget): return list(range(budget))', MINE, 'which is not for sale'),
    'too few': ('def ratio(view, budget): return view.ids[:1]', MINE, 'different ids of the view, but picked int64 of shape (1,)'),
    'one twice': ('def ratio(view, budget): return view.ids[[0]*budget]', MINE, 'but picked some of them twice'),
    'nothing': ('def ratio(view, budget): pass', MINE, 'but picked object of shape ()'),
    'fractions': ('def ratio(view, budget): return view.ids[:budget] + .5', MINE, 'but picked float64'),
    'what the learner does not reveal': ("def ratio(view, budget): return view.top(view.need('d_N'), budget)", MINE, 'my.py: ValueError in line 1: This learner does not reveal `d_N`'),
    'an error': ('def ratio(view, budget):\n    return 1/0', MINE, 'my.py: ZeroDivisionError in line 2: division by zero.'),
    'an unknown learner': (None, 'mine=resnet+my.py:ratio', "Unknown learner 'resnet': choose one of classifier"),
    'an unknown sampler': (None, 'mine=classifier+ratio', "Unknown sampler 'ratio': choose one of random"),
    'no sampler': (None, 'mine=classifier', "'mine=classifier' is no method: write SLUG=LEARNER+FILE.py:FUNCTION."),
    'the name of one of ours': (None, 'margin=classifier+my.py:ratio', 'margin is a method of ours'),
    'a name that is no slug': (None, 'my-own=classifier+my.py:ratio', "letters, digits and underscores: 'my-own' is not"),
}

@pytest.mark.parametrize('what', WRONG)
def test_wrong(what, photos, capsys):
    text, method, says = WRONG[what]
    if text: Path('my.py').write_text(text)
    with pytest.raises(SystemExit) as stop: small('random', method, workers='1')
    err = capsys.readouterr().err
    assert stop.value.code == 1 and err.count('\n') == 1 and says in err
    assert not Path('out').exists()

def test_a_file_that_cannot_be_imported_leaves_no_module(here):
    Path('my.py').write_text('half = 1\n1/0')
    before = set(sys.modules)
    with pytest.raises(ValueError, match='ZeroDivisionError in line 2'): take_sampler('my.py:ratio')
    assert set(sys.modules) == before

def test_a_sampler_alone_is_a_method(here):
    "Its name is the slug; who asks says what is trained."
    assert take_method('my.py:ratio') == 'ratio' and METHODS['ratio'].learner == 'classifier'
    assert take_method('my.py:ratio', 'm2_vaal') == 'ratio' and METHODS['ratio'].learner == 'm2_vaal'
    assert METHODS.pop('ratio').sampler.startswith('my.py:ratio@')
    for text, says in {'my.py:': 'is no method', ':ratio': 'There is no file', 'your.py:ratio': 'There is no file your.py', 'my.py:margin': 'a method of ours'}.items():
        with pytest.raises(ValueError, match=says): take_method(text)

def test_our_own_parts_combine():
    assert take_method('both=m2_vaal+margin') == 'both' and METHODS['both'].sampler == 'margin'
    assert take_method('both=m2_vaal+entropy') == 'both' and METHODS['both'].sampler == 'entropy'      # taken anew

def test_a_guest_without_a_colour_keeps_its_name(monkeypatch):
    guest = Method('a guest', 'classifier', 'margin')
    monkeypatch.setitem(METHODS, 'guest', guest)
    with pytest.raises(ValueError, match='guest is a method of ours'): take_method('guest=classifier+entropy')
    assert METHODS['guest'] is guest

def test_a_strategy_of_scikit_activeml(photos):
    pytest.importorskip('skactiveml')
    small('t=m2_vaal_no_adv+skactiveml:TypiClust', workers='1')
    lines = read_log(Path('out/fig2b-photos/t-0.jsonl'))
    assert len(lines) == 2 and lines[0]['protocol']['sampler'].startswith('skactiveml:TypiClust@')

def test_without_scikit_activeml(monkeypatch):
    monkeypatch.setattr('m2vaal_nb.interop.scikit_activeml.SkactivemlClassifier', sys.modules['m2vaal_nb.interop.scikit_activeml'].Missing) if 'm2vaal_nb.interop.scikit_activeml' in sys.modules else pytest.skip('not imported')
    with pytest.raises(ImportError, match='pip install'): take_method('t=classifier+skactiveml:TypiClust')

# --- a labelled folder ---
def test_a_folder_is_what_is_in_it(photos, here):
    name, data = folder_dataset('photos')
    assert name.startswith('photos@') and data.x.shape == (150, 1, 28, 28) and not len(data.x_test)
    per_class = np.bincount(judged_by(data, 0)[1], minlength=10)
    assert (np.abs(per_class - np.bincount(data.y, minlength=10)/5) <= .5).all()
    shutil.copytree('photos', 'elsewhere/photos')
    assert folder_dataset('elsewhere/photos')[0] == name
    first = next(Path('elsewhere/photos').rglob('*.png'))
    first.rename(first.with_name('renamed.png'))
    assert folder_dataset('photos', size=14)[0] != name
    next(Path('photos').rglob('*.png')).unlink()
    assert folder_dataset('photos')[0] != name

@pytest.mark.parametrize('workers', ['1', '2', 'lockstep'])
def test_each_seed_tests_by_other_images(photos, workers):
    "None of them is bought or validates; the same seed holds out the same, and the log says how many of each class."
    small('random', seeds='0,1', workers=workers)
    _, data = folder_dataset('photos')
    seeds = [held_out(data, seed) for seed in (0, 1)]
    assert not np.array_equal(*seeds)
    for seed,test in enumerate(seeds):
        lines = read_log(Path(f'out/fig2b-photos/random-{seed}.jsonl'))
        assert lines[0]['class_n'] == np.bincount(data.y, minlength=10).tolist() and 'class_n' not in lines[1]
        assert lines[0]['test_class_n'] == np.bincount(data.y[test], minlength=10).tolist()
        bought = np.array(sum((line['queried'] for line in lines), lines[0]['initial']))
        pool, val = start_pool(data, Protocol.from_dict(lines[0]['protocol']), seed)
        assert not set(test) & {*bought, *pool.ids, *val} and len(test) + len(pool.ids) + len(val) == len(data.x)

def unlike(sizes):
    "Features of classes of these sizes, without a test set."
    x = torch.eye(sum(sizes))
    return Dataset(x, np.repeat(np.arange(len(sizes)), sizes), x[:0], [], tuple('abcdef'[:len(sizes)]))

@pytest.mark.parametrize('sizes', [(2, 2), (1, 5), (3, 40), (7, 8, 12), (1, 1, 2)])
def test_something_of_each_class_is_left_and_something_held_out(sizes):
    data = unlike(sizes)
    for n,held in zip(sizes, np.bincount(judged_by(data, 3)[1], minlength=len(sizes))):
        assert held < n and (n == 1 or held == max(1, round(n/5)))

def test_where_nothing_can_be_held_out_it_is_said_before_anything_is_written(here):
    job = Job(Protocol(learner='linear', n_init=1, budget=1, max_labels=2, n_val=1), 'random', 0)
    with pytest.raises(ValueError, match='no test set, and none can be held out'): next(run(job, 'out', 'cpu', unlike((1, 1, 1))))
    assert not Path('out').exists()

def test_a_benchmark_keeps_its_test_set(few):
    assert not len(held_out(few, 0)) and judged_by(few, 0)[0] is few.x_test

def test_another_image_is_another_run(photos, capsys):
    small('random', workers='1')
    next(photos.rglob('*.png')).unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit): small('random', workers='1')
    assert 'dataset is' in capsys.readouterr().err

def on_features(experiment, methods, **options):
    "The same on features, which are learned in one pass."
    cli.m2vaal_run.__wrapped__(experiment, methods, rounds='1', dataset='photos', **options)

def logs_of(experiment, seed=0):
    "The folder of an experiment's logs on features of the folder."
    found, = Path('out').glob(f'{experiment}-photos_contrastive_1_{seed}_*')
    return found

@pytest.fixture
def quick_features(here, monkeypatch):
    "Features are learned in one pass, and kept in a folder of the test."
    monkeypatch.setattr('m2vaal_nb.own_images.labelled_folder.passes_for', lambda n: 1)
    monkeypatch.setenv('XDG_CACHE_HOME', str(here/'cache'))
    return here/'cache'

@pytest.mark.parametrize('workers', ['1', '2'])
def test_a_folder_becomes_features(photos, quick_features, capsys, workers):
    on_features('learned_4', 'linear_random,linear_doubt_area', workers=workers)
    first = capsys.readouterr().out
    on_features('learned_4', 'linear_random,linear_doubt_area', workers=workers)
    assert 'learned in 1 passes' in first and 'as 128 features' in first and '4/4' in first
    again = capsys.readouterr().out
    assert 'learned in' not in again and '4 of 4 rounds were there already' in again
    runs = read_results(logs_of('learned_4'))
    assert set(runs.method) == {'linear_random', 'linear_doubt_area'}
    dataset, = runs.protocol.map(lambda p: p['dataset']).unique()
    assert re.fullmatch('photos_contrastive_1_0_[0-9a-f]{6}@[0-9a-f]{64}', dataset)

@pytest.mark.parametrize('experiment,methods,says', [
    ('learned_4', 'mine=classifier+my.py:ratio', 'The learner classifier reads images'),
    ('learned_4', 'no_such', 'Unknown method'),
    ('learned_4', 'mine=linear+my.py:nothing', 'nothing'),
    ('learned_4_noisy', 'linear_random', 'learned_4_noisy is about data of its own'),
    ('learned_4_tail', None, 'learned_4_tail is about data of its own'),
    ('learned_2b_mnist', None, 'learned_2b_mnist is about data of its own'),
    ('fig2b', 'linear_random', 'The learner linear reads features')])
def test_what_cannot_work_is_told_before_features_are_learned(photos, capsys, monkeypatch, experiment, methods, says):
    monkeypatch.setattr('m2vaal_nb.own_images.labelled_folder.learn_aloud', None)
    with pytest.raises(SystemExit): on_features(experiment, methods)
    told = capsys.readouterr()
    assert says in told.err and told.err.count('\n') == 1 and not Path('out').exists() and 'become' not in told.out

@pytest.mark.parametrize('options,says', [
    (dict(experiment='learned_4_balanced', seeds='0-9'), 'a balanced start needs'),
    (dict(experiment='learned_4', size='4'), 'they must be at least 8 × 8'),
    (dict(experiment='learned_4', seeds='x'), "'x' is not a whole number"),
    (dict(experiment='fig2b', no_flip=True), '--no-flip and --no-recolour are for features')])
def test_a_folder_that_cannot_be_learned_from_is_told_at_once(here, few, capsys, monkeypatch, options, says):
    "Classes of 60, 60 and 4 images."
    monkeypatch.setattr('m2vaal_nb.own_images.labelled_folder.learn_aloud', None)
    for i,x in enumerate(few.x[:124]):
        file = here/'photos'/('rare' if i < 4 else 'ab'[i % 2])/f'{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(x).save(file)
    with pytest.raises(SystemExit): on_features(**{'methods': None} | options)
    told = capsys.readouterr()
    assert says in told.err and told.err.count('\n') == 1 and not Path('out').exists() and 'become' not in told.out

PCA = '''from sklearn.decomposition import PCA

def first(view, budget):
    "Where ten axes and as many images are needed."
    z = PCA(min(10, len(view.ids) - 1)).fit_transform(view.need('z_N_D'))
    assert view.need('z_N_D').shape[1] == 128
    return view.top(z[:, 4], budget)
'''

def test_noise_is_as_wide_as_features(photos, quick_features):
    Path('pca.py').write_text(PCA)
    on_features('learned_4', 'mine=linear+pca.py:first')
    assert len(read_results(logs_of('learned_4'))) == 2

@pytest.mark.parametrize('experiment,seed', [('learned_2b', 0), ('learned_2b_1', 1), ('learned_4_2', 2)])
def test_the_seed_of_the_representation_is_the_experiments(photos, quick_features, experiment, seed):
    on_features(experiment, 'linear_random')
    assert (logs_of(experiment, seed)/'linear_random-0.jsonl').exists()

def test_what_must_not_change(photos, quick_features, capsys):
    on_features('learned_4', 'linear_random')
    with_mirrors = capsys.readouterr().out
    before = logs_of('learned_4')
    on_features('learned_4', 'linear_random', no_flip=True)         # beside the others
    without = capsys.readouterr().out
    assert 'mirrored, an image is taken for the same thing' in with_mirrors and 'taken for the same' not in without
    after = {*Path('out').glob('learned_4-*')} - {before}
    assert len(after) == 1 and (after.pop()/'linear_random-0.jsonl').exists()

def test_features_learned_anew_and_differently_are_another_dataset(photos, quick_features, capsys, monkeypatch):
    on_features('learned_4', 'linear_random')
    shutil.rmtree(quick_features)
    on_features('learned_4', 'linear_random')          # the same machine learns the same
    assert 'nothing is left to do' in capsys.readouterr().out
    shutil.rmtree(quick_features)
    monkeypatch.setattr('m2vaal_nb.beyond.representation.embed', lambda nets, x, kind: embed(nets, x, kind).roll(1, 1))
    with pytest.raises(SystemExit): on_features('learned_4', 'linear_random')
    assert 'dataset is' in capsys.readouterr().err

@pytest.mark.parametrize('looks', [{}, dict(no_flip=True), dict(size='20')], **by_words)
def test_pictures_of_a_run_on_ones_own_images(photos, quick_features, capsys, looks):
    on_features('learned_4', 'linear_random', **looks)
    small('random', workers='1')
    size = {k: v for k,v in looks.items() if k == 'size'}
    cli.m2vaal_pictures.__wrapped__(str(logs_of('learned_4')/'linear_random-0.jsonl'), dataset='photos', **size)
    cli.m2vaal_pictures.__wrapped__('out/fig2b-photos/random-0.jsonl', dataset='photos')
    made = {file.name for file in Path('out/pictures').glob('*.png')}
    assert {'linear_random-0-round-0-picks.png', 'linear_random-0-round-0-map.png', 'random-0-round-0-picks.png'} <= made

def test_pictures_of_a_folder_that_changed(photos, capsys):
    small('random', workers='1')
    log = 'out/fig2b-photos/random-0.jsonl'
    for options in dict(dataset='photos', size='14'), dict(dataset='nowhere'), dict(dataset='photos', size='x'), {}:
        with pytest.raises(SystemExit): cli.m2vaal_pictures.__wrapped__(log, **options)
        assert capsys.readouterr().err.count('\n') == 1
    DATASETS.clear()                                    # as in another process
    with pytest.raises(SystemExit): cli.m2vaal_pictures.__wrapped__(log)
    assert 'name their folder (--dataset FOLDER)' in capsys.readouterr().err
    next(photos.rglob('*.png')).unlink()
    with pytest.raises(SystemExit): cli.m2vaal_pictures.__wrapped__(log, dataset='photos')
    assert 'is not what this run read' in capsys.readouterr().err and not Path('out/pictures').exists()

def test_an_unknown_dataset_offers_names_that_work(here, capsys):
    with pytest.raises(SystemExit): cli.m2vaal_run.__wrapped__('learned_4', dataset='photoz')
    assert 'choose one of fashion_mnist, mnist, cifar10, a folder of labelled images, or a file of their embeddings' in capsys.readouterr().err

@pytest.mark.parametrize('experiment', ['learned_0', 'learned_2b', 'learned_4_balanced', 'learned_4_propagation', 'learned_4_m1m2'])
def test_other_experiments_on_features_of_a_folder(photos, quick_features, experiment):
    learner = {'propagation', 'm1m2'} & {experiment.removeprefix('learned_4_')} or {'linear'}
    on_features(experiment, f'{learner.pop()}_doubt_area')
    runs = read_results(logs_of(experiment))
    assert len(runs) == 2 and (experiment != 'learned_0' or runs.n_labelled[0] == 0)

def test_colours_and_sizes(here):
    for i in range(20):
        file = Path('photos')/'ab'[i % 2]/f'{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(torch.randint(256, (3, 40 + i, 90), dtype=torch.uint8)).save(file)
    name, data = folder_dataset('photos', size=16)
    assert data.x.shape == (20, 3, 16, 16) and data.classes == ('a', 'b')
    assert folder_dataset('photos')[1].x.shape[2:] == (40, 40)

FOLDERS = { # files; what the sentence says
    'a folder that is not there': ([], 'There is no dataset photos: choose one of fashion_mnist'),
    'no images': (['a/readme.txt'], 'photos holds no images'),
    'one class': (['a/1.png', 'a/2.png'], 'photos has one class, a: at least two classes are needed'),
    'images without a class': (['a/1.png', '2.png'], '2.png is in no subfolder of photos'),
    'one image of a class': (['a/1.png', 'a/2.png', 'b/1.png'], 'photos has one image of b'),
    'no image at all': (['a/1.png', 'a/2.png', 'b/1.png', 'b/2.png'], '4 of 4 images could not be read'),
}

@pytest.mark.parametrize('what', FOLDERS)
def test_wrong_folder(what, here, capsys):
    files, says = FOLDERS[what]
    for file in files:
        (Path('photos')/file).parent.mkdir(parents=True, exist_ok=True)
        (Path('photos')/file).write_text('no image')
    assert says in refused(capsys, 'random', workers='1')
    assert not Path('out').exists()

def test_bad_images_among_good_ones(photos, capsys):
    "What a command says is possible is possible there."
    (next(photos.iterdir())/'page.jpg').write_text('<html>')
    says = refused(capsys, 'random', workers='1')
    assert '1 of 151 images could not be read' in says and 'page.jpg (HTML or XML); remove them from the folder.' in says
    options = re.findall(r'--([\w-]+)', says)
    assert {o.replace('-', '_') for o in options} <= set(inspect.signature(cli.m2vaal_run.__wrapped__).parameters)
    assert not Path('out').exists()

# --- embeddings of a labelled folder ---
def test_on_features_the_name_of_a_sampler_is_enough(embedded):
    on_embeddings(methods='random,linear_margin,my.py:ratio')
    assert {o.name for o in Path('out/learned_4-photos').iterdir()} == {'linear_random-0.jsonl', 'linear_margin-0.jsonl', 'ratio-0.jsonl'}
    assert read_log(Path('out/learned_4-photos/ratio-0.jsonl'))[0]['protocol']['learner'] == 'linear'

def test_on_other_data_no_control_takes_part_unasked(embedded):
    on_embeddings(methods=None)
    assert {o.name.partition('-')[0] for o in Path('out/learned_4-photos').iterdir()} == {f'linear_{o}' for o in few_samplers}

def test_figures_lie_beside_their_logs(embedded, capsys):
    on_embeddings(out='first')
    cli.m2vaal_figures.__wrapped__('first')
    said = capsys.readouterr().out
    assert Path('first/figures/learned_4-photos.png').exists() and not Path('out').exists()
    assert 'learned_4-photos, accuracy in percent averaged over ' in said

@pytest.fixture
def embedded(here):
    "A file of embeddings: three classes, 60 of each."
    g = np.random.default_rng(0)
    names = [f'{"abc"[i % 3]}/{i}.png' for i in range(180)]
    np.savez('photos.npz', names=names, embeddings=g.standard_normal((180, 12)) + 3*np.eye(3, 12)[np.arange(180) % 3])
    return names

def on_embeddings(experiment='learned_4', methods='linear_random,linear_doubt_area', **options):
    cli.m2vaal_run.__wrapped__(experiment, methods, **dict(dict(rounds='1', dataset='photos.npz', workers='1'), **options))

@pytest.mark.parametrize('workers', ['1', '2'])
def test_embeddings_are_a_dataset(embedded, capsys, workers):
    on_embeddings(workers=workers)
    on_embeddings(workers=workers)
    said = capsys.readouterr().out
    assert 'photos: 180 images of 3 classes (a 60, b 60, c 60), as 12 features; 36 of them' in said and '4 of 4 rounds were there already' in said
    runs = read_results('out/learned_4-photos')
    assert set(runs.method) == {'linear_random', 'linear_doubt_area'} and runs.test_acc.min() > .5
    dataset, = runs.protocol.map(lambda p: p['dataset']).unique()
    assert re.fullmatch('photos@[0-9a-f]{64}', dataset)

def test_neither_the_order_of_rows_in_a_file_nor_its_name_is_another_dataset(embedded):
    name, data = embeddings_dataset('photos.npz')
    shutil.copy('photos.npz', 'others.npz')
    assert embeddings_dataset('others.npz')[0].partition('@')[2] == name.partition('@')[2]
    z = dict(np.load('photos.npz'))
    np.savez('photos.npz', names=z['names'][::-1], embeddings=z['embeddings'][::-1])
    again, turned = embeddings_dataset('photos.npz')
    assert again == name and torch.equal(turned.x, data.x) and (turned.y == data.y).all()
    np.savez('photos.npz', names=z['names'], embeddings=z['embeddings'][::-1])
    assert embeddings_dataset('photos.npz')[0] != name

@pytest.mark.parametrize('experiment,options,says', [
    ('fig2b', dict(methods='random'), 'fig2b reads images, not embeddings: take an experiment such as learned_4'),
    ('learned_4', dict(methods='vaal'), 'reads images'),
    ('learned_4_mnist', {}, 'learned_4_mnist is about data of its own'),
    ('learned_4', dict(size='16'), '--size is for the images of a folder'),
    ('learned_4', dict(no_flip=True), '--no-flip and --no-recolour are for features of other images'),
    ('learned_4', dict(init_classes='a,d'), "There is no class 'd' to start from: the classes are a, b, c."),
    ('learned_4', dict(init_classes='a,a'), 'Classes must be a list of different names'),
    ('learned_4', dict(init_classes=','), 'No class to start from was named: the classes are a, b, c.'),
    ('learned_4', dict(init_classes=''), 'No class to start from was named'),
    ('learned_0', dict(init_classes='a'), 'learned_0 starts without a label'),
    ('learned_4_1', {}, 'learned_4_1 is about data of its own'),
    ('learned_4', dict(dataset='nowhere.npz'), 'There is no dataset nowhere.npz: choose one of fashion_mnist')])
def test_what_cannot_work_on_embeddings(embedded, capsys, experiment, options, says):
    with pytest.raises(SystemExit): on_embeddings(experiment, **options)
    told = capsys.readouterr()
    assert says in told.err and told.err.count('\n') == 1 and not Path('out').exists()

NAMED = { # names of a file's rows; what the sentence says
    'no folders': ([f'{i}.png' for i in range(8)], '0.png is in no subfolder of photos.npz'),
    'one class': ([f'a/{i}.png' for i in range(8)], 'photos.npz has one class, a'),
    'one class, absolute': ([f'/data/photos/a/{i}.png' for i in range(8)], 'photos.npz has one class, a'),
    'one of a class': (['b/0.png', *(f'a/{i}.png' for i in range(7))], 'photos.npz has one image of b')}

@pytest.mark.parametrize('before', ['', '/data/photos/', 's3://bucket/photos/', './', 'c:\\photos\\'])
def test_folders_before_the_class(here, before):
    sep = '\\' if '\\' in before else '/'
    np.savez('photos.npz', names=[f'{before}{"ab"[i % 2]}{sep}old{sep}{i}.png' for i in range(8)], embeddings=np.eye(8))
    _, data = embeddings_dataset('photos.npz')
    assert data.classes == ('a', 'b') and len(data.x) == 8

@pytest.mark.parametrize('name,dataset', [('mnist', 'mnist'), ('fashion_mnist', 'fashion_mnist')])
def test_a_file_that_is_called_like_a_benchmark_is_not_one(here, name, dataset):
    Path(name).touch()
    assert cli.other_images(name) == (dataset, None) and not is_embeddings(name)
    assert representation_of('learned_4', name).images == 'fashion_mnist' and representation_of('fig2b', name) is None

def labels_csv(rows, name='labels.csv'):
    Path(name).write_text('\n'.join(['image,label', *(f'{image},{label}' for image,label in rows)]))
    return name

@pytest.mark.parametrize('before', ['', '/data/photos/'])
def test_a_file_says_what_embeddings_are(embedded, capsys, before):
    "The run is that of names which say it, where the order of images is the same; without a label one is left out."
    z = dict(np.load('photos.npz'))
    kinds, files = zip(*(name.split('/') for name in z['names']))
    flat = [f'{kind}{file}' for kind,file in zip(kinds, files)]
    np.savez('photos.npz', names=flat, embeddings=z['embeddings'])
    on_embeddings(labels=labels_csv(zip([before + name for name in flat], kinds)))
    of_file = read_results('out/learned_4-photos')
    assert 'photos: 180 images of 3 classes (a 60, b 60, c 60), as 12 features' in capsys.readouterr().out
    np.savez('photos.npz', names=z['names'], embeddings=z['embeddings'])
    on_embeddings(out='by_name')
    by_name = read_results('by_name/learned_4-photos')
    assert of_file.protocol[0] == by_name.protocol[0] and (of_file.test_acc == by_name.test_acc).all()
    on_embeddings(out='fewer', labels=labels_csv([*zip(z['names'], kinds)][:-1], 'fewer.csv'))
    assert 'photos: 179 images' in (said := capsys.readouterr().out) and 'Left out, without a label: 1 of 180 images.' in said

def test_a_file_says_what_images_are(photos, capsys):
    "In a folder without subfolders of classes; its run can be looked at with the same file alone."
    Path('flat').mkdir()
    paths = sorted(Path('photos').rglob('*.png'))
    for path in paths: shutil.copy(path, f'flat/{path.parent.name}{path.name}')
    file = labels_csv((f'{p.parent.name}{p.name}', p.parent.name) for p in paths)
    run = dict(methods='margin', seeds='0', rounds='1', steps='2', workers='1', dataset='flat')
    with pytest.raises(SystemExit): cli.m2vaal_run.__wrapped__('fig2b', **run)
    assert 'is in no subfolder of flat: name a file that says what it is (--labels labels.csv)' in capsys.readouterr().err
    cli.m2vaal_run.__wrapped__('fig2b', labels=file, **run)
    log = 'out/fig2b-flat/margin-0.jsonl'
    with pytest.raises(SystemExit): cli.m2vaal_pictures.__wrapped__(log, dataset='flat')
    cli.m2vaal_pictures.__wrapped__(log, dataset='flat', labels=file)
    assert list(Path('out/pictures').rglob('*.png'))

@pytest.mark.parametrize('rows, says', [
    ([], 'labels.csv has no label: at least two classes are needed'), ([('nowhere.png', 'a')], 'nowhere.png'),
    ([('a/0.png', 'a'), ('a/3.png', 'a')], 'labels.csv has one class, a: at least two classes are needed'),
    ([('a/0.png', 'a'), ('a/3.png', 'a'), ('b/1.png', 'b')], 'labels.csv has one image of b'),
    (None, 'There is no file labels.csv')])
def test_files_of_labels_that_cannot_work(embedded, capsys, rows, says):
    if rows is not None: labels_csv(rows)
    with pytest.raises(SystemExit): on_embeddings(labels='labels.csv')
    told = capsys.readouterr()
    assert says in told.err and told.err.count('\n') == 1 and not Path('out').exists()

@pytest.mark.parametrize('dataset', [None, 'mnist'])
def test_labels_are_for_images_of_ones_own(here, capsys, dataset):
    with pytest.raises(SystemExit): cli.m2vaal_run.__wrapped__('fig2b', dataset=dataset, labels=labels_csv([]))
    assert '--labels is for images of your own' in capsys.readouterr().err
    with pytest.raises(SystemExit): cli.m2vaal_pictures.__wrapped__('log.jsonl', labels='labels.csv')
    assert '--labels is for images of your own: --dataset FOLDER.' in capsys.readouterr().err

def test_another_file_of_that_name_has_a_folder_of_its_own(embedded, capsys):
    on_embeddings(methods='linear_random')
    z = np.load('photos.npz')
    np.savez('photos.npz', names=z['names'], embeddings=z['embeddings'] + 1)
    capsys.readouterr()
    for options in dict(methods='linear_margin'), dict(methods='linear_margin', init_classes='a'):
        with pytest.raises(SystemExit): on_embeddings(**options)
        assert 'out/learned_4-photos mixes experiments: ' in capsys.readouterr().err
    assert os.listdir('out/learned_4-photos') == ['linear_random-0.jsonl']

@pytest.mark.parametrize('dataset,says', [(None, 'The images of photos are not at hand'), ('photos.npz', 'photos.npz is a file: pictures need the folder'), ('photos', 'a run on a file of embeddings has no pictures')])
def test_no_pictures_of_embeddings(embedded, photos, capsys, dataset, says):
    on_embeddings(methods='linear_random')
    DATASETS.pop(next(name for name in DATASETS if name.startswith('photos@')))
    with pytest.raises(SystemExit): cli.m2vaal_pictures.__wrapped__('out/learned_4-photos/linear_random-0.jsonl', dataset=dataset)
    assert says in capsys.readouterr().err

def test_names_of_classes_are_compared_in_their_normal_form():
    assert numbers_of([' Cafe\u0301 '], ('Café', 'b')) == numbers_of(iter(['Café']), ('Cafe\u0301', 'b')) == (0,)

@pytest.mark.parametrize('what', NAMED)
def test_embeddings_without_classes(here, capsys, what):
    names, says = NAMED[what]
    np.savez('photos.npz', names=names, embeddings=np.eye(8))
    with pytest.raises(SystemExit): on_embeddings()
    assert says in capsys.readouterr().err and not Path('out').exists()

@pytest.mark.parametrize('classes,numbers', [('b', [1]), ('c,a', [0, 2]), (None, [])])
def test_the_classes_of_the_first_labels(embedded, classes, numbers):
    on_embeddings('learned_2b', init_classes=classes)
    line = read_log(Path('out/learned_2b-photos/linear_random-0.jsonl'))[0]
    _, data = embeddings_dataset('photos.npz')
    assert line['protocol']['init_classes'] == numbers
    assert set(data.y[line['initial']]) == set(numbers or range(3))

def test_the_classes_of_the_first_labels_of_a_benchmark(monkeypatch, few, here):
    monkeypatch.setattr(experiments, 'dataset', lambda name: few)
    monkeypatch.setattr('m2vaal_nb.own_images.labelled_folder.dataset', lambda name: few)
    jobs = []
    monkeypatch.setattr(experiments, 'run_grid', lambda some, *_: jobs.extend(some))
    cli.m2vaal_run.__wrapped__('fig2b', 'random', init_classes=few.classes[3], workers='1')
    assert jobs[0].protocol.init_classes == (3,)

def test_size_is_for_folders(here, capsys):
    with pytest.raises(SystemExit): cli.m2vaal_run.__wrapped__('fig2b', 'random', dataset='mnist', size='20')
    assert '--size is for the images of a folder' in capsys.readouterr().err

def test_other_names_of_images_have_a_folder_of_their_own(monkeypatch, few, here):
    monkeypatch.setattr(experiments, 'dataset', lambda name: few)
    seen = []
    monkeypatch.setattr(experiments, 'run_grid', lambda jobs, folder, *_: seen.append((str(folder), jobs[0].protocol.dataset)))
    for dataset in 'fashion_mnist', 'cifar10': cli.m2vaal_run.__wrapped__('fig2b', 'random', dataset=dataset, workers='1')
    assert seen == [('out/fig2b', 'fashion_mnist'), ('out/fig2b-cifar10', 'cifar10')]
