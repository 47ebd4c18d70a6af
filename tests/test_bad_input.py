"Every bad request gets one sentence that names the problem and what is allowed, and nothing is written."
import gzip, hashlib, json, re, subprocess
from dataclasses import replace
import numpy as np, pytest, torch
from m2vaal_nb import experiments
from m2vaal_nb.beyond import declared, one_factor      # their methods, learners and samplers join
from m2vaal_nb.foundations import download
from m2vaal_nb.cli import m2vaal_bench, m2vaal_demo, m2vaal_figures, m2vaal_methods, m2vaal_run
from m2vaal_nb.data import Pool, PoolView, initial_ids, load_dataset, lookup, split_ids
from m2vaal_nb.foundations.download import IDX_MD5, find_idx, idx_root, stage
from m2vaal_nb.samplers import (SAMPLERS, class_anchors_rows, discriminator, entropy_scores,
    least_confidence_scores, margin_scores, random, weighted_anchors_rows)
from m2vaal_nb.experiments import plan, protocol_for, read_results, run_grid
from m2vaal_nb.paper.revisit import revisit
from m2vaal_nb.foundations.machine import pick_device, warn_if_moved
from m2vaal_nb.foundations.names import UNLISTED
from m2vaal_nb.interop.views import find_sampler
from m2vaal_nb.own_images.query import method_for
from m2vaal_nb.scale.own_sampler import take_method, take_sampler
from m2vaal_nb.loop import Job, Protocol, run
from m2vaal_nb.models import Encoder, SIZES

nan, inf = float('nan'), float('inf')
p, z, y = torch.full((6, 2), .5), torch.arange(12.).reshape(6, 2), np.array([0, 1]*3)
toy = Pool(torch.zeros(6, 1, 4, 4, dtype=torch.uint8), np.arange(5), lookup(y), ('a', 'b'))
view = PoolView(np.arange(6), 0, p, z, torch.rand(6), z_L_D=z, y_L=y, p_L_C=p)
def anchors_1(z_U=z, y_U=y, z_L=z, y_L=y, budget=2, n=2): return class_anchors_rows(z_U, y_U, z_L, y_L, budget, n)
def anchors_2(z_U=z, p_U=p, z_L=z, y_L=y, budget=2): return weighted_anchors_rows(z_U, p_U, z_L, y_L, budget)
def first_ids(n, **kw): return initial_ids(y, np.arange(6), n, **kw)

CALLS = { # what is wrong: (the call, what its sentence says)
    # probabilities
    'NaN probabilities': (lambda: entropy_scores(p*nan), 'must be finite'),
    'infinite probabilities': (lambda: margin_scores(p*inf), 'must be finite'),
    'negative probabilities': (lambda: least_confidence_scores([[1.5, -.5]]), 'not negative'),
    'probabilities that do not sum to 1': (lambda: entropy_scores(2*p), 'sum to 1'),
    'probabilities in one dimension': (lambda: entropy_scores(p[0]), r'shape \(rows, classes\)'),
    'probabilities in three dimensions': (lambda: margin_scores(p[None]), r'shape \(rows, classes\)'),
    'no probabilities': (lambda: least_confidence_scores(p[:0]), 'at least 1 row'),
    'one class has no margin': (lambda: margin_scores(torch.ones(3, 1)), 'classes at least 2'),
    # latents
    'NaN latents': (lambda: anchors_1(z_U=z*nan), 'must be finite'),
    'infinite labelled latents': (lambda: anchors_2(z_L=z*inf), 'must be finite'),
    'no latents': (lambda: anchors_1(z_U=z[:0], y_U=[]), 'at least 1 row'),
    'latents in one dimension': (lambda: anchors_2(z_U=z[:,0]), 'must have shape'),
    'latents of other width': (lambda: anchors_1(z_L=torch.zeros(6, 3)), 'Labelled latents must have 2 dimensions, not 3'),
    # labels
    'label above the classes': (lambda: anchors_1(y_L=y+1), 'between 0 and 1'),
    'label below 0': (lambda: anchors_1(y_U=y-1), 'between 0 and 1'),
    'too few labels': (lambda: anchors_1(y_L=y[:5]), 'Labelled latents must have 5 rows, not 6'),
    'labels that are fractions': (lambda: anchors_2(y_L=y + .5), 'integers'),
    'predictions for other rows': (lambda: anchors_1(y_U=y[:4]), 'must be 6 integers'),
    'probabilities for other rows': (lambda: anchors_2(p_U=p[:4]), 'Latents must have 4 rows, not 6'),
    'latents too large to square': (lambda: anchors_2(z_U=z.double()*1e200), r'below 1e\+100'),
    'a view of other rows': (lambda: replace(view, d_N=torch.rand(5)), '`d_N` must be 6 finite numbers'),
    # budgets
    **{f'{name} with a budget of 0': (lambda f=f: f(view, 0), '`budget` is 0: it must be an integer, at least 1') for name,f in SAMPLERS.items()},
    **{f'a budget of {b!r}': (lambda b=b: random(view, b), 'must be an integer, at least 1') for b in (-1, 1.5, '3', None, True)},
    'nothing left to choose from': (lambda: random(PoolView([]), 1), 'nothing left'),
    # views
    **{f'{name} from a blind learner': (lambda f=f: f(PoolView(np.arange(6)), 1), 'does not reveal') for name,f in SAMPLERS.items() if name != 'random'},
    'scores that are NaN': (lambda: view.top(torch.full((6,), nan), 1), '6 finite numbers'),
    'scores for other rows': (lambda: view.top(torch.zeros(5), 1), '6 finite numbers'),
    'a discriminator that says NaN': (lambda: discriminator(replace(view, d_N=torch.full((6,), nan)), 1), '6 finite numbers'),
    # the one door
    'a label bought twice': (lambda: toy.reveal([1]).reveal([1]), 'already labelled: 1'),
    'an id twice in one query': (lambda: toy.reveal([1, 1]), 'twice in one query: 1'),
    'an id of the validation set': (lambda: toy.reveal([5]), 'not in the pool: 5'),
    'a negative id': (lambda: toy.reveal([-1]), 'Ids must be 0 or more'),
    'an id that is no integer': (lambda: toy.reveal([.5]), 'Ids must be integers'),
    'an oracle that invents classes': (lambda: replace(toy, oracle=lambda ids: ids + 7).reveal([1]), 'between 0 and 1'),
    'an oracle that says too little': (lambda: replace(toy, oracle=lambda ids: ids[:0]).reveal([1]), 'must be 1 integers'),
    # the start
    'an initial class that does not exist': (lambda: first_ids(2, classes=(5,)), 'has class 5'),
    'fewer initial labels than none': (lambda: first_ids(-1), 'allowed are 0 to 6'),
    'more initial labels than images': (lambda: first_ids(7), 'allowed are 0 to 6'),
    'a balanced start that a class is too small for': (lambda: initial_ids(np.array([0, 0, 0, 1]), np.arange(4), 4, balanced=True), 'fewer than'),
    'a validation set of everything': (lambda: split_ids(5, 5, 0), 'at least one of 5'),
    'a negative validation set': (lambda: split_ids(5, -1, 0), '`n_val` is -1'),
    'images too small for the nets': (lambda: Encoder((1, 3, 3), SIZES['small'], 2), 'at least 4 × 4'),
    # protocols
    **{f'unknown {k}': (lambda k=k: Protocol(**{k: 'nonsense'}), f"Unknown {k} 'nonsense': choose one of") for k in ('dataset', 'learner', 'sampler', 'size', 'layout', 'elbo', 'space')},
    **{f'{k} of {v!r}': (lambda k=k, v=v: Protocol(**{k: v}), f'`{k}` is') for k,v in
       [('steps', 0), ('steps', 1.5), ('rounds', 0), ('budget', 0), ('batch', -1), ('n_init', -1), ('latent', True), ('warmup_steps', -1), ('n_val', 0), ('lr', nan), ('lam', -1), ('beta', inf), ('eta', '1')]},
    'classes that are names': (lambda: Protocol(init_classes=['cat', 'dog']), '`init_classes` must be numbers'),
    'classes that are fractions': (lambda: Protocol(init_classes=(1.5,)), '`init_classes` must be integers'),
    'balanced perhaps': (lambda: Protocol(init_balanced='no'), 'must be True or False'),
    'fewer labels at the end than at the start': (lambda: Protocol(n_init=10, max_labels=5), 'at least `n_init`'),
    **{f'a method called {m!r}': (lambda m=m: Job(Protocol(), m, 0), 'letters, digits and underscores') for m in (5, None, True, b'margin', '', 'a b', '../a')},
    'unknown experiment': (lambda: plan('fig5'), "Unknown experiment 'fig5': choose one of"),
    'unknown method': (lambda: protocol_for(Protocol(), 'vall'), "Unknown method 'vall', perhaps vaal: choose one of"),
    'no seeds': (lambda: plan('demo', seeds=[]), 'at least one'),
    'a negative seed': (lambda: plan('demo', seeds=[-1]), '`seed` is -1: it must be an integer, at least 0'),
    'unknown device': (lambda: pick_device('tpu'), 'choose one of auto, cpu, cuda'),
    'unknown dataset': (lambda: load_dataset('imagenet'), 'choose one of fashion_mnist'),
    'a round that was never run': (lambda: revisit('nowhere.jsonl', 0), 'has no round 0'),
}

@pytest.mark.parametrize('what', CALLS)
def test_call(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, says = CALLS[what]
    with pytest.raises(ValueError, match=says) as e: call()
    assert str(e.value).endswith('.') and '\n' not in str(e.value)
    assert not list(tmp_path.iterdir())

LISTS = { # who lists what there is: what to ask in vain
    'a method': lambda: protocol_for(Protocol(), 'vall'), 'no method': lambda: plan('demo', []), 'a method of a file': lambda: take_method('mine=resnet+margin'),
    'a sampler': lambda: take_sampler('ratio'), 'a sampler elsewhere': lambda: find_sampler('margins'), 'a method on features': lambda: method_for('vall', True),
    'a method that reads features': lambda: method_for('linear_badge', False), 'a method that reads images': lambda: method_for('vaal', True),
    **{f'a {k} of a protocol': (lambda k=k: Protocol(**{k: 'nonsense'})) for k in ('dataset', 'learner', 'sampler')}}

@pytest.mark.parametrize('what', LISTS)
def test_what_is_offered_has_no_settings_of_experiments(what):
    "They are known, and run by their names; so are samplers and features with a hash."
    with pytest.raises(ValueError, match='choose') as e: LISTS[what]()
    assert not re.search(r'\b(linear_)?C_\d|doubt_(sigma|C)_\d|@', str(e.value))
    for slug in declared.SETTINGS: protocol_for(Protocol(), slug)
    assert len(declared.SETTINGS) == 16 and not {*map(declared.slug_of, declared.STRATEGIES), *experiments.LINEUPS['fig2b'], 'linear', *declared.STRATEGIES} & UNLISTED

SHELL = { # what is wrong: (command, options, what its sentence says)
    'unknown experiment': (m2vaal_run, dict(name='fig9'), 'choose one of fig2a'),
    'a path as experiment': (m2vaal_run, dict(name='../../x'), 'choose one of fig2a'),
    'unknown method': (m2vaal_run, dict(name='demo', methods='random,vall'), "Unknown method 'vall'"),
    'seeds that are words': (m2vaal_run, dict(name='demo', seeds='one'), "'one' is not a whole number"),
    'seeds that are fractions': (m2vaal_run, dict(name='demo', seeds='0,1.5'), "'1.5' is not a whole number"),
    'empty methods': (m2vaal_run, dict(name='demo', methods=','), 'No method was given'),
    'empty seeds': (m2vaal_run, dict(name='demo', seeds=','), 'at least one'),
    'negative seeds': (m2vaal_run, dict(name='demo', seeds='-1'), '`seed` is -1'),
    'no rounds': (m2vaal_run, dict(name='demo', rounds='0'), '`rounds` is 0'),
    'rounds that are words': (m2vaal_run, dict(name='demo', rounds='all'), "'all' is not a whole number"),
    'no steps': (m2vaal_run, dict(name='demo', steps='0'), '`steps` is 0'),
    'negative steps': (m2vaal_run, dict(name='demo', steps='-5'), '`steps` is -5'),
    'unknown device': (m2vaal_run, dict(name='demo', device='tpu'), 'choose one of auto, cpu, cuda'),
    'a folder that cannot be': (m2vaal_run, dict(name='demo', out='file/x'), 'Cannot write to file'),
    'a folder that cannot be, for the demonstration': (m2vaal_demo, dict(out='file/x'), 'Cannot write to file'),
    'a benchmark into a folder that cannot be': (m2vaal_bench, dict(out='file/x.json'), 'Cannot write to file'),
    'a benchmark into a folder': (m2vaal_bench, dict(out='.'), '. is a folder'),
    'workers that are words': (m2vaal_run, dict(name='demo', workers='many'), "'many' is not a whole number"),
    'a cluster that is not there': (m2vaal_run, dict(name='demo', workers='127.0.0.1:9'), 'No Ray cluster answers at 127.0.0.1:9'),
    'methods that read something else': (m2vaal_methods, dict(reads='texts'), "'texts': choose one of images, features"),
    'no results folder': (m2vaal_figures, dict(results='nowhere'), 'no folder nowhere'),
    'an empty results folder': (m2vaal_figures, dict(results='.'), 'holds no logs'),
}

@pytest.mark.parametrize('what', SHELL)
def test_shell(what, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'file').touch()
    command, options, says = SHELL[what]
    with pytest.raises(SystemExit) as stop: command.__wrapped__(**options)
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and not out and err.count('\n') == 1 and says in err and err.startswith(command.__name__)
    assert [o.name for o in tmp_path.iterdir()] == ['file']

def test_no_cuda_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match='no CUDA device'): pick_device('cuda')

# --- logs ---
@pytest.fixture
def logged(few, tiny, tmp_path):
    def go(): return list(run(Job(tiny, 'random', 0), tmp_path, 'cpu', few))
    go()
    return go, tmp_path/'random-0.jsonl'

LOGS = { # damage -> what its sentence says
    'a line of nonsense in the middle': (lambda l: [l[0], 'nonsense', l[2]], 'line 2 is not the record of round 1'),
    'a line missing in the middle': (lambda l: [l[0], l[2]], 'line 2 is not the record of round 1'),
    'a line twice': (lambda l: [l[0], l[0], l[1]], 'line 2 is not the record of round 1'),
    'a line that is no object': (lambda l: ['3', *l[1:]], 'line 1 is not the record of round 0'),
    'a line without fields': (lambda l: ['{"round": 0}', *l[1:]], 'line 1 is not the record of round 0'),
    'another seed inside': (lambda l: [t.replace('"seed": 0', '"seed": 1') for t in l], 'seed is 1 there, 0 here'),
    'another method inside': (lambda l: [t.replace('"method": "random"', '"method": "vaal"') for t in l], "method is 'vaal' there"),
    'another protocol inside': (lambda l: [t.replace('"steps": 2', '"steps": 3') for t in l], 'steps is 3 there, 2 here'),
    'a field that no version has': (lambda l: [t.replace('"steps": 2', '"steps": 2, "colour": 3') for t in l], 'colour is 3 there, None here'),
    'ids outside the pool': (lambda l: [json.dumps({**json.loads(l[0]), 'queried': [10**6]}), *l[1:]], 'not in the pool: 1000000'),
}

@pytest.mark.parametrize('what', LOGS)
def test_log(what, logged):
    go, log = logged
    damage, says = LOGS[what]
    log.write_text('\n'.join(damage(log.read_text().splitlines())) + '\n')
    before = log.read_bytes()
    with pytest.raises(ValueError, match=says): go()
    assert log.read_bytes() == before

def test_another_version_goes_on_with_a_warning(logged):
    go, log = logged
    lines = log.read_text().splitlines()[:2]
    log.write_text('\n'.join(t.replace('"m2vaal_nb": "', '"m2vaal_nb": "0.0.') for t in lines) + '\n')
    with pytest.warns(UserWarning, match='goes on with'): assert [l['round'] for l in go()] == [2]

def test_only_a_run_that_moves_is_warned_of(recwarn):
    a, b = dict(versions='1', host='a'), dict(versions='1', host='b')
    for lines, line in (([], a), ([a], a), ([b, a], a | dict(round=2))): warn_if_moved('log', lines, line)
    assert not recwarn
    with pytest.warns(UserWarning, match='^log was begun with .* and goes on with'): warn_if_moved('log', [a, b], a)

def test_requests_that_do_not_fit_the_data(few, tiny, tmp_path):
    def go(p, method='random', seed=0): return list(run(Job(p, method, seed), tmp_path/'x', 'cpu', few))
    for args,says in [((replace(tiny, max_labels=5000),), 'the pool has 1050 images'), ((replace(tiny, n_val=1100),), 'at least one of 1100'),
                      ((replace(tiny, init_classes=(11,)),), 'has class 11'), ((replace(tiny, sampler='discriminator'),), 'does not reveal `d_N`'),
                      ((replace(tiny, sampler='class_anchors'),), 'does not reveal'), ((tiny, '../escape'), 'letters, digits and underscores'),
                      ((tiny, 'random', -1), '`seed` is -1'), ((tiny, 'random', '0'), "`seed` is '0'"), ((replace(tiny, warmup_steps=2),), 'this learner has none'),
                      ((replace(tiny, learner='ta_vaal', batch=1),), '`batch` is 1, but the learner ta_vaal ranks images by their losses: it needs two at least')]:
        with pytest.raises(ValueError, match=says): go(*args)
        assert not (tmp_path/'x').exists() and not (tmp_path.parent/'escape-0.jsonl').exists()

# --- data ---
def copy_of_the_data(folder, spoil=lambda name, raw: raw):
    files = find_idx(idx_root(), 'FashionMNIST')
    for name,path in files.items(): (folder/f'{name}.gz').write_bytes(spoil(name, gzip.compress(path.read_bytes(), 1)))

DAMAGE = {
    'truncated': (lambda raw: raw[:len(raw)//2], 'is damaged'),
    'bit-flipped': (lambda raw: raw[:5000] + bytes([raw[5000] ^ 1]) + raw[5001:], 'is damaged'),
    'whole, but of other content': (lambda raw: gzip.compress(b'other'), 'is damaged'),
    'not gzip': (lambda raw: b'plain', 'is damaged'),
}

@pytest.mark.parametrize('what', DAMAGE)
def test_data_folder_that_is_damaged(what, tmp_path, monkeypatch):
    spoil, says = DAMAGE[what]
    copy_of_the_data(tmp_path, lambda name, raw: spoil(raw) if name.startswith('t10k-labels') else raw)
    monkeypatch.setenv('M2VAAL_DATA', str(tmp_path))
    monkeypatch.setattr(download, 'cache_dir', lambda: tmp_path/'cache')
    with pytest.raises(ValueError, match=says): load_dataset()
    assert not (tmp_path/'cache').exists()

def test_a_data_folder_of_the_other_dataset_is_called_by_its_name(tmp_path, monkeypatch):
    "MNIST's files have the names of Fashion-MNIST's; whole files are not damaged, wherever they lie."
    mine = {name: f'{name} of mine'.encode() for name in IDX_MD5['MNIST']}
    monkeypatch.setitem(IDX_MD5, 'MNIST', {name: hashlib.md5(raw).hexdigest() for name,raw in mine.items()})
    monkeypatch.setenv('M2VAAL_DATA', str(tmp_path))
    monkeypatch.setattr(download, 'cache_dir', lambda: tmp_path/'cache')
    for name,raw in mine.items(): (tmp_path/f'{name}.gz').write_bytes(gzip.compress(raw))
    first = 'train-images-idx3-ubyte'
    with pytest.raises(ValueError, match=f'{first}.gz is {first} of MNIST, and whole, but {first} of FashionMNIST is asked for') as e: load_dataset()
    assert '\n' not in str(e.value) and not (tmp_path/'cache').exists()
    stage(tmp_path, 'MNIST')                         # it is good for what it is
    (tmp_path/f'{first}.gz').write_bytes(gzip.compress(mine['t10k-images-idx3-ubyte']))
    with pytest.raises(ValueError, match=f't10k-images-idx3-ubyte of MNIST, and whole, but {first} of MNIST'): stage(tmp_path, 'MNIST', tmp_path/'other')

def test_data_folder_flat_and_gzipped_is_staged_once(tmp_path, monkeypatch):
    copy_of_the_data(tmp_path)
    monkeypatch.setattr(download, 'cache_dir', lambda: tmp_path/'cache')
    assert len(load_dataset(root=tmp_path).x) == 60_000
    assert find_idx(tmp_path/'cache', 'FashionMNIST').keys() == IDX_MD5['FashionMNIST'].keys()
    assert stage(tmp_path/'cache', 'FashionMNIST') == tmp_path/'cache'

@pytest.mark.parametrize('name', ['fashion_mnist', 'mnist', 'cifar10'])
def test_data_folder_that_is_missing(name, tmp_path, monkeypatch):
    monkeypatch.setenv('M2VAAL_DATA', str(tmp_path/'nowhere'))
    with pytest.raises(ValueError, match='nowhere'): load_dataset(name)

def test_no_network_and_no_apt(tmp_path, monkeypatch):
    def down(*_, **__): raise OSError('the network is down')
    monkeypatch.delenv('M2VAAL_DATA', raising=False)
    monkeypatch.setattr(download, 'cache_dir', lambda: tmp_path)
    monkeypatch.setattr(download, 'DEBIAN', tmp_path/'nowhere')
    monkeypatch.setattr('torchvision.datasets.FashionMNIST.download', down)
    monkeypatch.setattr(subprocess, 'run', down)
    with pytest.raises(ValueError, match=r'set \$M2VAAL_DATA to a folder.*the network is down'): load_dataset()
    assert not list(tmp_path.iterdir())

def test_there_are_many_of_them(): assert len(CALLS) + len(SHELL) + len(LOGS) + len(DAMAGE) >= 60


@pytest.mark.parametrize('wrong,says', [
    (dict(ids=[0, 9]), 'up to 9'), (dict(ids=[0, 0, 1]), 'must all be different'),
    (dict(labelled=[5], y=[0]), 'not in the pool: 5'), (dict(labelled=[1, 1], y=[0, 0]), 'twice'),
])
def test_a_pool_holds_what_it_says(wrong, says):
    with pytest.raises(ValueError, match=says): replace(toy, **wrong)


def test_an_enormous_id_asked_for_twice_is_one_sentence():
    with pytest.raises(ValueError, match='twice in one query: 1000000000000'): toy.reveal([10**12, 10**12])
