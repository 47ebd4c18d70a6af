"m2vaal_query: what a labeller gives and gets, and what is wrong with it said in one sentence."
import argparse, inspect, json, os, re, sys
from pathlib import Path
from unittest.mock import patch
from xml.etree import ElementTree
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from conftest import PAPERS_METHODS, sh
from m2vaal_nb import cli
from m2vaal_nb.cli import m2vaal_query
from m2vaal_nb.data import load_dataset
from m2vaal_nb.experiments import METHODS, Method, protocol_for
from m2vaal_nb.own_images import query as query_module
from m2vaal_nb.own_images.files import image_paths
from m2vaal_nb.own_images.folder import query_folder
from m2vaal_nb.interop.label_studio import label_studio_config, label_studio_labels, label_studio_tasks
from m2vaal_nb.losses import LEARNERS
from m2vaal_nb.loop import Protocol, Training, train_round, view_pool
from m2vaal_nb.own_images.accuracy import advice, cross_validate, how_good
from m2vaal_nb.own_images.query import FEW, known_pool, next_images, predict_rest, temperature, trained, view_blocks
from m2vaal_nb.samplers import SAMPLERS, SCORES

CLASSES, HEADER = ['cat', 'dog', 'hen & co'], 'image,label,predicted,probability,score\n'

@pytest.fixture
def photos(tmp_path, monkeypatch):
    "Thirty small images of three shades, the first nine labelled in a CSV; everything in the working folder."
    monkeypatch.chdir(tmp_path)
    g = np.random.default_rng(0)
    (tmp_path/'photos/new ones').mkdir(parents=True)
    names = [f'{"new ones/" if i >= 20 else ""}{i:02} #.png' for i in range(30)]
    for i,name in enumerate(names): Image.fromarray((80*(i % 3) + g.integers(40, size=(8, 8))).astype(np.uint8)).save(tmp_path/'photos'/name)
    pd.DataFrame(dict(image=names, label=[CLASSES[i % 3] if i < 9 else None for i in range(30)])).to_csv('labels.csv', index=False)
    return names

def query(*args):
    "What the command answers to these words."
    sys.argv, before = ['m2vaal_query', *args], sys.argv
    try: m2vaal_query()
    finally: sys.argv = before

def test_a_query_and_its_labels_given_back(photos, capsys):
    query('photos', '--labels', 'labels.csv', '--budget', '5', '--steps', '2', '--label-studio', 'tasks.json')
    out, err = capsys.readouterr()
    assert not err and out.splitlines()[0] == '30 images, 9 of them labelled; seen in grey, at 8 × 8 pixels, as they are.'
    assert 'next.csv: the 5 images to label next, best first.' in out and 'on the 9 labels at hand' in out
    assert 'Always naming cat would be right for 33%.' in out and re.search(r'By class: cat \d of 3, dog \d of 3, hen & co \d of 3.', out)
    first = pd.read_csv('next.csv')
    assert list(first) == ['image', 'label', 'predicted', 'probability', 'score'] and first.score.is_monotonic_decreasing
    assert set(first.image) <= set(photos[9:]) and set(first.predicted) <= set(CLASSES) and first.probability.between(1/3, 1).all() and first.label.isna().all()
    first.assign(label=['dog', 'cat', None, None, None]).to_csv('next.csv', index=False)
    tasks = json.loads(open('tasks.json').read())
    def done(t, choice, cancelled=False): return dict(t, annotations=[dict(was_cancelled=cancelled, result=[dict(t['predictions'][0]['result'][0], value=dict(choices=[choice]))])])
    open('export.json', 'w').write(json.dumps([done(tasks[2], 'hen & co'), done(tasks[3], 'cat', cancelled=True), dict(tasks[4], annotations=[])]))
    query('photos', '--labels', 'labels.csv,next.csv,export.json', '--budget', '18', '--steps', '2', '--out', 'then.csv')
    assert capsys.readouterr().out.startswith('30 images, 12 of them labelled')
    assert set(pd.read_csv('then.csv').image) == set(photos[9:]) - set(first.image[:3])

@pytest.mark.parametrize('budget', ['22', '30', str(10**30)])
def test_a_budget_above_what_is_left_takes_what_is_left(photos, capsys, budget):
    query('photos', '--labels', 'labels.csv', '--budget', budget, '--steps', '1')
    out, err = capsys.readouterr()
    assert f'{budget} images were asked for, and 21 have no label: these are all of them.' in out and 'the 21 images to label next' in out and not err
    assert set(pd.read_csv('next.csv').image) == set(photos[9:])

def test_next_images_warns_of_a_budget_above_what_is_left():
    pool = known_pool(np.random.default_rng(0).integers(256, size=(9, 1, 8, 8)).astype(np.uint8), [0, 1, 0, 1, *[-1]*5], 'ab')
    for budget in 5, np.int64(5): assert len(next_images(pool, budget, steps=1)) == 5
    with pytest.warns(UserWarning, match='`budget` is 6, more than the 5 left'): assert len(next_images(pool, 6, steps=1)) == 5
    for budget in 0, -1, 1.5, '3', True, None:
        with pytest.raises(ValueError, match='budget'): next_images(pool, budget, steps=1)

def spoil_some(photos):
    "Three bad files, two of them labelled, and two that Pillow may not read; their names."
    spoil('photos/00 #.png', b'')
    spoil('photos/05 #.png', b'<html>login</html>')
    spoil('photos/new ones/25 #.png', open('photos/07 #.png', 'rb').read()[:60])
    spoil('photos/1.HEIC', b'\0\0\0\x18ftypheic')
    spoil('photos/new ones/2.avif', b'\0\0\0\x18ftypavif')
    return ['00 #.png', '05 #.png', '1.HEIC', 'new ones/2.avif', 'new ones/25 #.png']

def test_bad_files_are_left_out_when_asked_for(photos, capsys):
    bad = spoil_some(photos)
    query('photos', '--labels', 'labels.csv', '--budget', '99', '--steps', '1', '--skip-bad')
    out, err = capsys.readouterr()
    assert not err and out.startswith('27 images, 7 of them labelled; seen in grey')
    assert '5 of 32 images could not be read: 00 #.png (empty), 05 #.png (HTML or XML), 1.HEIC (HEIC, for which there is no reader), new ones/2.avif (' in out
    assert '2 of the labels are of images that are left out.' in out and 'on the 7 labels at hand' in out
    assert set(pd.read_csv('next.csv').image) == set(photos[9:]) - set(bad)

def test_bad_files_change_nothing_for_the_others(photos, capsys):
    query('photos', '--labels', 'labels.csv', '--steps', '2', '--out', 'a.csv')
    for i in range(3): spoil(f'photos/{i}.jpg', b'')
    query('photos', '--labels', 'labels.csv', '--steps', '2', '--out', 'b.csv', '--skip-bad')
    assert open('a.csv').read() == open('b.csv').read()

def test_all_that_are_left_are_bad(photos, capsys):
    for name in photos[9:]: spoil(f'photos/{name}', b'')
    query('photos', '--labels', 'labels.csv', '--steps', '1', '--skip-bad')
    assert 'All images are labelled: there is nothing to choose.' in capsys.readouterr().out and not os.path.exists('next.csv')

def test_pictures_of_any_depth_in_one_folder(photos, capsys):
    "What is done to them is said, and a picture keeps its place among the others."
    ramp = np.arange(64).reshape(8, 8)
    Image.fromarray((64*ramp).astype(np.uint16)).save('photos/z1.png')
    Image.fromarray((ramp/64).astype(np.float32)).save('photos/z2.tif')
    Image.fromarray((4*ramp).astype(np.uint8)).save('photos/z3.gif', save_all=True, append_images=[Image.new('L', (8, 8))]*2)
    query('photos', '--labels', 'labels.csv', '--budget', '5', '--steps', '1')
    out = capsys.readouterr().out
    for says in ('Where pixels are 16 bits, 0 is black and 4,095 is white.', 'Where pixels are fractions, 0 is black and 1 is white.',
                 '1 of 33 images hold several pictures: the first is taken (z3.gif).'): assert says in out

@pytest.mark.parametrize('method', PAPERS_METHODS)
def test_one_training_is_that_of_the_loop(method):
    "A query trains the nets of the loop, and a look in blocks sees what a look at all sees."
    fashion = load_dataset()
    pool = known_pool(fashion.x[:60], np.where(np.arange(60) < 12, fashion.y[:60], -1), fashion.classes)
    p = protocol_for(Protocol(steps=2), method)
    nets, same = trained(pool, p), train_round(Training(pool, p, 0, 0))[0]
    for a,b in zip(nets.state_dict().values(), same.state_dict().values()): assert torch.equal(a, b)
    small, whole = view_blocks(nets, pool, p, 3, block=7), view_pool(nets, LEARNERS[p.learner], pool, p, 3)[0]
    for k,v in vars(whole).items():
        if isinstance(v, torch.Tensor): assert torch.allclose(getattr(small, k), v, atol=1e-4)
        else: assert np.array_equal(getattr(small, k), v)
    assert len(next_images(pool, 3, method, steps=2)) == 3

@pytest.mark.parametrize('block', [1, 47, 48, 49, 4096])
def test_blocks_of_any_size_see_the_same(block):
    fashion = load_dataset()
    pool = known_pool(fashion.x[:60], np.where(np.arange(60) < 12, fashion.y[:60], -1), fashion.classes)
    p = protocol_for(Protocol(steps=1), 'margin')
    nets = trained(pool, p)
    found = view_blocks(nets, pool, p, block=block)
    assert (found.ids == pool.unlabelled).all() and torch.allclose(found.p_N_C, view_blocks(nets, pool, p).p_N_C, atol=1e-5)

COMMANDS = {name: getattr(cli, name) for name in vars(cli) if name.startswith('m2vaal_')}

@pytest.mark.parametrize('name', COMMANDS)
def test_help_has_dashes(name, tmp_path):
    out = sh(name, '--help', cwd=tmp_path)
    assert out.startswith('usage:') and not re.search(r'--\w*_', out)
    of_two_words = [o for o in inspect.signature(COMMANDS[name]).parameters if '_' in o]
    assert all(f"--{o.replace('_', '-')}" in out for o in of_two_words) and (of_two_words or name not in ('m2vaal_query', 'm2vaal_serve', 'm2vaal_embed'))

@pytest.mark.parametrize('mark', ['_', '-'], ids=['fastcore 1', 'fastcore 2'])
def test_dashes_and_underscores_whatever_fastcore_has(mark, monkeypatch, capsys):
    def made(func):
        parser = argparse.ArgumentParser('find')
        parser.add_argument('--place')
        parser.add_argument(f'--no{mark}bad{mark}ones', action='store_true')
        parser.add_argument(f'--how{mark}often', default='1')
        return parser
    monkeypatch.setattr(cli, 'anno_parser', made)
    def find(place:str=None, no_bad_ones:bool=False, how_often:str='1'): return place, no_bad_ones, how_often
    def found(*words): return tuple(cli.options_of(find, [*words]).values())
    assert found('a_b', '--no-bad-ones', '--how_often=c_d') == found('--place', 'a_b', '--no_bad_ones', '--how-often', 'c_d') == ('a_b', True, 'c_d')
    assert found('--no') == (None, True, '1') and found() == (None, False, '1')
    with pytest.raises(SystemExit): found('--how_oftn')
    assert '--no-bad-ones' in (err := capsys.readouterr().err) and '_' not in err.replace('HOW_OFTEN', '')

# --- advice ---
def answers(counts, labels=('cat', 'dog')):
    "So many labels right from neither, from all, from half, from both; classes in turn."
    rows = [row for row,n in zip(((0, 0), (0, 1), (1, 0), (1, 1)), counts) for _ in range(n)]
    return pd.DataFrame(rows, columns=['half', 'all'], dtype=bool).assign(label=np.resize(list(labels), len(rows)))

ADVICE = { # what is known: (the labels, what is said of more labels, and what else)
    'they help': (answers((10, 50, 10, 30)), 'More labels help', '(+27 to +53). How often that interval holds of labels that were chosen was not checked.'),
    'they do not': (answers((100, 5, 5, 890)), 'More labels have stopped helping', 'on the 1000 labels at hand, by cross-validation. That is no estimate for all images where labels were chosen: these are often harder than the rest.'),
    'few that agree': (answers((0, 0, 0, 12)), 'It is too early to say', 'By class: cat 6 of 6, dog 6 of 6.'),
    'few that do not': (answers((3, 6, 3, 24)), 'It is too early to say', 'changed it by +8 points'),
    'no class is known': (answers((0, 0, 0, 200)).drop(columns='label'), 'cannot tell', 'their classes are not known'),
    'one class': (answers((0, 0, 0, 200), ['cat']), 'cannot tell', 'all are of cat'),
    'one class, some wrong': (answers((9, 3, 2, 200), ['cat']), 'cannot tell', 'all are of cat'),
    'a class of one': (answers((0, 0, 0, 200), ['cat', 'dog']*99 + ['cat', 'hen']), 'cannot tell', 'only one of hen'),
    'two classes of one': (answers((0, 0, 0, 200), ['cat', 'dog']*99 + ['cow', 'hen']), 'cannot tell', 'only one of cow, hen'),
    'no better than the largest class': (answers((20, 0, 0, 180), ['cat']*9 + ['dog']), 'cannot tell', 'not clearly better than always naming cat'),
    'worse than the largest class': (answers((50, 0, 0, 150), ['cat']*9 + ['dog']), 'cannot tell', 'Always naming cat would be right for 90%'),
    'hardly better than the largest class': (answers((19, 0, 0, 181), ['cat']*9 + ['dog']), 'cannot tell', 'not clearly better'),
    'better than the largest class': (answers((0, 0, 0, 200), ['cat']*9 + ['dog']), 'More labels have stopped helping', 'would be right for 90%'),
}

@pytest.mark.parametrize('what', ADVICE)
def test_advice(what):
    found, says, too = ADVICE[what]
    told = advice(found)
    assert says in told.splitlines()[-1] and too in told
    assert ('cannot tell' in told) == (says == 'cannot tell')
    assert ('embeddings of another net' in told) == ('stopped' in says)

def test_a_class_without_labels_is_named():
    told = advice(answers((0, 0, 0, 200)), classes=('cat', 'cow', 'dog'))
    assert told.endswith('These labels cannot tell whether more would help: there is none of cow.')
    assert advice(answers((0, 0, 0, 200)), classes=('cat', 'dog')).splitlines()[-1].startswith('More labels have stopped')

def test_a_label_alone_in_its_class_judges_nobody():
    "Held out, its class was never learned: it is said, and not counted; so is what has no label at all."
    rows = pd.DataFrame(dict(label=[*'aaaabbbb', 'c', 'd'], half=1., all=[1.]*8 + [0., 0.]))
    accuracy, left_out, baseline, by_class = how_good(rows)
    assert accuracy.startswith('Accuracy 100%') and ' on the 8 labels' in accuracy and left_out == 'Not among these: labels that are alone in their class, c, d.'
    assert by_class == 'By class: a 4 of 4, b 4 of 4.' and 'right for 50%' in baseline
    assert 'Without a label, e is never predicted: on all images the accuracy is lower.' in how_good(rows, classes='abcde')
    assert how_good(rows.assign(label=list('abcdefghij'))) == ['How good the predictions are, these labels cannot say: labels that are alone in their class, a, b, c, d, e, f, g, h, i, j.']
    assert how_good(rows.assign(label='a')) == ['How good the predictions are, these labels cannot say: all are of a.']
    assert not re.search(r'Accuracy|%', advice(rows.assign(label='a'), classes='ab'))
    assert how_good(rows[2:6]) == ['How good the predictions are, these labels cannot say: they are fewer than 6.']

@pytest.mark.parametrize('alone', [0, 1, 2, 9])
def test_one_rare_class_leaves_the_others_their_shares(alone):
    y = np.concatenate([np.repeat([0, 1, 2], [30, 15, 9]), 3 + np.arange(alone)])
    for seed in range(5):
        folds = [test for _,test in query_module.label_folds(y, 3, seed)]
        assert sorted(np.concatenate(folds)) == list(range(len(y)))
        for c,n in ((1, 5), (2, 3)): assert [int((y[test] == c).sum()) for test in folds] == [n]*3
    assert len([*query_module.label_folds(np.arange(6), 3, 0)]) == 3          # no class has enough

def test_one_class_of_two(photos, capsys):
    pd.DataFrame(dict(image=photos[:8], label='cat')).to_csv('one.csv', index=False)
    query('photos', '--labels', 'one.csv', '--classes', 'cat,dog', '--steps', '1')
    out = capsys.readouterr().out
    assert 'No label yet for dog.' in out and out.endswith('cannot tell whether more would help: there is none of dog.\n')

def test_cross_validation_says_what_was_predicted():
    fashion = load_dataset()
    pool = known_pool(fashion.x[:60], np.where(np.arange(60) < 30, fashion.y[:60], -1), fashion.classes)
    found = cross_validate(pool, 'random', steps=5, seed=2**32 + 5)
    assert list(found) == ['label', 'predicted', 'half', 'all'] and found.label.tolist() == [fashion.classes[y] for y in pool.y]
    assert (found['all'] == (found.label == found.predicted)).all() and set(found.half) | set(found['all']) <= {0, 1}
    assert set(found.predicted) <= set(fashion.classes)

@pytest.mark.parametrize('n, splits', [(6, 5), (FEW, 5), (FEW + 1, 1)])
def test_few_labels_are_split_several_times(n, splits):
    "Each counts by how often it was right; the first split is that of a single one. Nets that take their time split once."
    g = np.random.default_rng(0)
    y = np.arange(300) % 3
    h = g.normal(size=(300, 8)) + 1.5*np.eye(8)[y]
    h = torch.from_numpy(h/np.linalg.norm(h, axis=1, keepdims=True)).float()
    pool = known_pool(h, np.where(np.arange(300) < n, y, -1), 'abc')
    found = cross_validate(pool, 'linear_random')
    shares = splits*found['all']
    assert np.allclose(shares, shares.round()) and found['all'].between(0, 1).all()
    if n > 6: assert (found['all'] % 1 > 0).any() == (splits > 1)
    first = cross_validate(pool, 'linear_random', repeats=1)['all']
    assert (shares >= first).all() and (splits - shares >= 1 - first).all()
    assert set(cross_validate(pool, 'propagation_random')['all']) <= {0, 1}
    most = found.groupby('label')['all'].sum()
    assert f"Accuracy {found['all'].mean():.0%} " in how_good(found)[0]
    assert all(re.search(rf'{c} {k:.3g} of ', how_good(found)[-1]) for c,k in most.items())
    with pytest.raises(ValueError, match='repeats'): cross_validate(pool, 'linear_random', repeats=0)

def test_what_is_predicted_is_what_was_predicted_most_often(monkeypatch):
    "Of several splits; where classes tie, the first of them."
    pool = known_pool(torch.eye(6), np.zeros(6, int), 'abc')
    turns = iter([2, 1, 2, 0, 1])                  # of the first label, split by split; from half of the labels all say c
    said = []
    def scripted(pool, p, seed, train, test):
        whole = len(train) == 4
        if whole and 0 in test: said.append(next(turns))
        guess = [said[-1] if whole and i == 0 else 2*(not whole) for i in test]
        return torch.eye(3)[guess]
    monkeypatch.setattr('m2vaal_nb.own_images.accuracy.predictions', scripted)
    found = cross_validate(pool, 'linear_random')
    assert found.predicted.tolist() == ['b', *'aaaaa'] and found['all'].tolist() == [.2, 1, 1, 1, 1, 1] and (found.half == 0).all()

def on_features(n, n_classes=4, noise=.5, seed=0, labels=None):
    "Classes around as many corners of a cube, of which so many rows are labelled."
    g = np.random.default_rng(seed)
    y = g.integers(0, n_classes, 400)
    h = np.eye(8)[y] + g.normal(size=(400, 8))*noise
    h = torch.from_numpy(h/np.linalg.norm(h, axis=1, keepdims=True)).float()
    return known_pool(h, np.where(np.arange(400) < n, y if labels is None else labels, -1), 'abcdefgh'[:n_classes]), y

HEAD = protocol_for(Protocol(), 'linear_random')

@pytest.mark.parametrize('n', [8, 40, FEW, FEW + 1])
def test_a_temperature_is_likeliest_on_what_was_held_out(n):
    "Against a search by brute force; and it makes what is written more honest than a head is."
    pool, y = on_features(n)
    tau = temperature(pool, HEAD)
    splits = query_module.splits_of(pool.y, HEAD)
    said = [(query_module.predictions(pool, HEAD, 0, train, test), pool.y[test]) for _,train,test in splits]
    assert len(splits) == (15 if n <= FEW else 3)
    def loss(tau):
        each = [torch.nn.functional.nll_loss((p[p[range(len(t)), t] > 0].double().log()/tau).log_softmax(-1),
                torch.from_numpy(t)[p[range(len(t)), t] > 0], reduction='sum').item() for p,t in said]
        return sum(each)
    grid = np.geomspace(1, 10, 200)
    assert 1 <= tau <= 10 and loss(tau) <= min(map(loss, grid)) + 1e-3
    raw = trained(pool, HEAD).predict(pool.x[n:])['p']
    rest = predict_rest(pool, HEAD)
    right = (raw.argmax(-1).numpy() == y[n:]).mean()
    assert rest.predicted.tolist() == ['abcd'[c] for c in raw.argmax(-1)]
    if n == 40: assert tau > 1.1 and abs(rest.probability.mean() - right) < abs(raw.amax(-1).mean().item() - right)

NO_TEMPERATURE = {'five labels': (on_features(5)[0], HEAD), 'one class': (on_features(50, labels=np.zeros(400, int))[0], HEAD),
                  'easy classes': (on_features(80, noise=.01)[0], HEAD), 'a graph': (on_features(50)[0], protocol_for(Protocol(), 'propagation_random'))}

@pytest.mark.parametrize('what', NO_TEMPERATURE)
def test_nothing_to_temper(what):
    pool, p = NO_TEMPERATURE[what]
    assert temperature(pool, p) == pytest.approx(1, abs=1e-3)

def test_a_class_for_each_label_has_no_temperature():
    "Held out, none of them was known."
    pool, _ = on_features(8, n_classes=8, labels=np.arange(400) % 8)
    assert temperature(pool, HEAD) == 1 and np.isfinite(predict_rest(pool, HEAD).probability).all()

def test_picks_and_scores_know_nothing_of_the_temperature():
    pool, _ = on_features(40)
    with patch.object(query_module, 'temperature', lambda *_: 1.): plain = next_images(pool, 9, 'linear_margin')
    tempered = next_images(pool, 9, 'linear_margin')
    same = ['id', 'predicted', 'score']
    assert plain[same].equals(tempered[same]) and (tempered.probability < plain.probability).all()

def test_nothing_labelled(photos, capsys):
    query('photos', '--budget', '4', '--label-studio', 'tasks.json', '--classes', ','.join(CLASSES))
    assert '4 images to label next, at random, because nothing is labelled yet' in capsys.readouterr().out
    first = pd.read_csv('next.csv')
    assert len(set(first.image)) == 4 and first.predicted.isna().all()
    assert [t['predictions'] for t in json.loads(open('tasks.json').read())] == [[]]*4
    assert [c.get('value') for c in ElementTree.parse('tasks.xml').iter('Choice')] == CLASSES
    query('photos', '--budget', '4', '--seed', '1', '--out', 'other.csv')
    assert set(pd.read_csv('other.csv').image) != set(first.image)

@pytest.mark.parametrize('method', ['random', 'margin', 'vaal', 'algorithm_1', 'algorithm_2'])
def test_any_method(photos, capsys, method):
    query('photos', '--labels', 'labels.csv', '--budget', '21', '--steps', '1', '--method', method)
    got, order = pd.read_csv('next.csv'), 'best first' if method in ('margin', 'vaal') else f'as {method} picked them'
    assert f'the 21 images to label next, {order}.' in capsys.readouterr().out
    assert got.score.is_monotonic_decreasing or order != 'best first'
    assert set(got.image) == set(photos[9:]) and got.predicted.notna().all() and got.score.notna().all() == (method != 'random')

def test_a_strangers_sampler(photos, capsys, monkeypatch):
    "Registered, it chooses; the score is empty until it brings one."
    monkeypatch.setitem(METHODS, 'mine', Method('mine', 'classifier', 'mine'))
    monkeypatch.setitem(SAMPLERS, 'mine', mine := lambda view, budget: view.ids[:budget])
    def scores(): query('photos', '--labels', 'labels.csv', '--budget', '3', '--steps', '1', '--method', 'mine'); return pd.read_csv('next.csv').score.tolist()
    assert np.isnan(scores()).all()
    monkeypatch.setitem(SCORES, mine, ('the order of the files', lambda view: -np.arange(len(view))))
    assert scores() == [0, -1, -2]

def test_what_is_ours_and_blank_is_overwritten(photos, capsys):
    for classes in CLASSES, CLASSES[:2]: query('photos', '--budget', '4', '--label-studio', 'tasks.json', '--classes', ','.join(classes))
    assert open('tasks.xml').read() == label_studio_config(CLASSES[:2])
    raw = open('next.csv', 'rb').read()
    spoil('next.csv', b'\xef\xbb\xbf' + raw.replace(b'\n', b'\r\n'))     # opened and saved by a spreadsheet
    query('photos', '--budget', '3')
    assert len(pd.read_csv('next.csv')) == 3

def test_labels_given_during_training_are_kept(photos, monkeypatch):
    from m2vaal_nb.own_images import folder as q
    def slow(*args, **kw): spoil('next.csv', (HEADER + '00 #.png,cat,,,\n').encode()); return next_images(*args, **kw)
    monkeypatch.setattr(q, 'next_images', slow)
    with pytest.raises(ValueError, match='would be lost'): q.query_folder('photos', budget=2, say=lambda s: None)
    assert open('next.csv').read() == HEADER + '00 #.png,cat,,,\n'

def test_everything_labelled(photos, capsys):
    "Nothing to choose and nothing to write, but the accuracy is still to be told."
    pd.DataFrame(dict(image=photos, label=[CLASSES[i % 3] for i in range(30)])).to_csv('all.csv', index=False)
    for words in [], ['--label-studio', 'tasks.json', '--out', 'labels.csv']:
        there = os.listdir()
        query('photos', '--labels', 'all.csv', '--steps', '40', *words)
        out = capsys.readouterr().out
        assert 'there is nothing to choose' in out and 'on the 30 labels at hand, by cross-validation.' in out and 'more labels' not in out.lower() and os.listdir() == there

# --- images that nobody can label ---
@pytest.mark.parametrize('embedded', [False, True])
@pytest.mark.parametrize('form', ['txt', 'csv'])
def test_images_are_put_aside(photos, capsys, form, embedded):
    "Whatever else is asked for, they are gone, and so are their labels; a blank one of an audit holds nothing up."
    aside = photos[2:4] + photos[10:24]
    if form == 'csv': pd.DataFrame(dict(image=['/data/' + o for o in aside], why='blurred')).to_csv('aside.csv', index=False)
    else: open('aside.txt', 'w').write('\ufeff' + '\n\n'.join(aside))
    words = []
    if embedded:
        np.savez('z.npz', embeddings=np.random.default_rng(0).standard_normal((30, 8)), names=photos)
        words = ['--embeddings', 'z.npz']
    query('photos', '--labels', 'labels.csv', '--budget', '99', '--exclude', f'aside.{form}', '--audit', '.5', '--predictions', 'all.csv', '--report', 'r.html', *words)
    out = capsys.readouterr().out
    assert '14 images, 7 of them labelled' in out and f'16 of 30 images are put aside (aside.{form}), ' in out and 'no image of the folder' not in out
    assert {*pd.read_csv('next.csv').image} == {*photos[9:]} - {*aside} and {*pd.read_csv('all.csv').image} == {*photos} - {*aside}

def embed_at_random(photos): np.savez('z.npz', embeddings=np.random.default_rng(0).standard_normal((len(photos), 8)), names=photos)

@pytest.mark.parametrize('audit', [[], ['--audit', '.5']])
def test_images_that_were_drawn_at_random_measure(photos, capsys, audit):
    "They come first, whatever the hash of their names; with an audit more are drawn, without one none is, and no other label counts."
    embed_at_random(photos)
    drawn = [*photos[:9], *photos[20:25]]
    chosen = [o for o in photos if o not in drawn][:12]
    pd.DataFrame(dict(image=drawn, label=['cat', 'dog']*7)).to_csv('first.csv', index=False)
    pd.DataFrame(dict(image=chosen, label=['cat', 'dog']*6)).to_csv('second.csv', index=False)
    words = ['photos', '--labels', 'first.csv,second.csv', '--embeddings', 'z.npz', '--budget', '2', '--report', 'r.html', *audit]
    query(*words)
    assert 'measured on 14' not in capsys.readouterr().out
    query(*words, '--drawn', 'first.csv')
    out = capsys.readouterr().out
    assert '14 images were drawn at random (first.csv); 14 of them are labelled.' in out and ('holds up' not in out or audit)
    assert ('drawn at random, to measure' in out) == bool(audit)
    if not audit: assert 'measured on 14 images drawn at random' in out and 'measured on 14 images' in open('r.html').read()

def test_images_that_were_drawn_and_have_no_label_hold_up_what_they_measure(photos, capsys):
    embed_at_random(photos)
    open('drawn.txt', 'w').write('\n'.join(photos[:20]))                            # the first nine have labels
    query('photos', '--labels', 'labels.csv', '--embeddings', 'z.npz', '--drawn', 'drawn.txt')
    out = capsys.readouterr().out
    assert '20 images were drawn at random (drawn.txt); 9 of them are labelled, and the others are the first to be drawn.' in out
    assert 'from 10 on it says' in out and {*pd.read_csv('next.csv').image[:11]} == {*photos[9:20]}
    pd.DataFrame(dict(image=photos[10:20], label='cat')).to_csv('more.csv', index=False)         # all but the tenth
    query('photos', '--labels', 'labels.csv,more.csv', '--embeddings', 'z.npz', '--drawn', 'drawn.txt', '--out', 'then.csv')
    out, first = capsys.readouterr().out, pd.read_csv('then.csv').image[0]
    assert first == photos[9] and f'label {first}, or put them aside (--exclude)' in out and '19 of them are labelled' in out

def test_images_that_a_method_chose_are_not_taken_for_drawn_without_a_word(photos, capsys):
    embed_at_random(photos)
    rows = pd.DataFrame(dict(image=photos[:12], label=[CLASSES[i % 3] for i in range(12)], probability=[.9]*3 + ['']*9))
    rows.to_csv('batch.csv', index=False)
    query('photos', '--labels', 'labels.csv', '--embeddings', 'z.npz', '--drawn', 'batch.csv')
    out = capsys.readouterr().out
    assert '3 of them have a probability in batch.csv, as images have that a method chose' in out
    assert '3 of them have a label in batch.csv that is not read' in out                        # labels.csv has nine
    query('photos', '--labels', 'labels.csv,batch.csv', '--embeddings', 'z.npz', '--drawn', 'batch.csv')
    assert 'not read' not in capsys.readouterr().out

def test_several_files_put_aside_and_draw(photos, capsys):
    embed_at_random(photos)
    for i,names in enumerate([photos[:5], photos[5:9], photos[20:22], photos[22:24]]): open(f'{i}.txt', 'w').write('\n'.join(names))
    query('photos', '--labels', 'labels.csv', '--embeddings', 'z.npz', '--drawn', '0.txt,1.txt', '--exclude', '[23].txt')
    out = capsys.readouterr().out
    assert '9 images were drawn at random (0.txt, 1.txt); 9 of them are labelled.' in out and '4 of 30 images are put aside (2.txt, 3.txt)' in out

def test_labels_that_are_all_put_aside(photos, capsys):
    open('aside.txt', 'w').write('\n'.join(photos[:9]))
    with pytest.raises(SystemExit): query('photos', '--labels', 'labels.csv', '--exclude', 'aside.txt')
    assert 'aside.txt puts aside every image that has a label.' in capsys.readouterr().err

def test_a_file_of_labels_that_were_drawn_is_not_to_grow(photos, capsys):
    embed_at_random(photos)
    pd.DataFrame(dict(image=photos[:9], label='cat')).to_csv('first.csv', index=False)
    query('photos', '--labels', 'first.csv', '--classes', 'cat,dog', '--embeddings', 'z.npz', '--drawn', 'first.csv')
    assert 'What is labelled later belongs in another file than first.csv.' in capsys.readouterr().out
    open('second.txt', 'w').write(photos[12])
    query('photos', '--labels', 'first.csv', '--classes', 'cat,dog', '--embeddings', 'z.npz', '--drawn', 'second.txt,first.csv', '--out', 'then.csv')
    assert 'What is labelled later belongs in another file than first.csv.' in capsys.readouterr().out

@pytest.mark.parametrize('drawn, words, says', [
    ('all', [], 'drawn.txt names all images, for a row without a label counts too: it is to name those that were drawn at random from them.'),
    ('none', [], 'drawn.txt names no image that is left'),
    ('aside', ['--exclude', 'aside.txt'], 'drawn.txt names no image that is left'),
    ('gone', [], 'The folder has no image gone.png'),
    ('gone', ['--skip-bad'], 'drawn.txt names no image that is left'),
    ('no embedding', ['--skip-bad'], 'drawn.txt names no image that is left'),
    (None, [], 'There is no file drawn.txt.')])
def test_what_cannot_have_been_drawn(photos, capsys, drawn, words, says):
    embed_at_random(photos[:28])
    open('aside.txt', 'w').write(photos[3] + '\n')
    names = {'all': photos[:28], 'none': [], 'aside': [photos[3]], 'gone': ['gone.png'], 'no embedding': photos[28:]}
    if drawn: open('drawn.txt', 'w').write('\n'.join(names[drawn]))
    skip = [] if '--skip-bad' in words or drawn in ('gone', None) else ['--skip-bad']
    with pytest.raises(SystemExit): query('photos', '--labels', 'labels.csv', '--embeddings', 'z.npz', '--drawn', 'drawn.txt', *words, *skip)
    assert says in capsys.readouterr().err and not os.path.exists('next.csv')

@pytest.mark.parametrize('text, says', [(None, 'There is no file aside.txt.'), ('00.png', 'The folder has no image 00.png: did you mean 00 #.png?'), ('all', 'aside.txt names all images: nothing is left.')])
def test_what_cannot_be_put_aside(photos, capsys, text, says):
    if text: open('aside.txt', 'w').write('\n'.join(photos) if text == 'all' else text)
    with pytest.raises(SystemExit): query('photos', '--labels', 'labels.csv', '--exclude', 'aside.txt')
    assert says in capsys.readouterr().err and not os.path.exists('next.csv')

def test_an_image_without_an_embedding_is_put_aside(photos, capsys):
    np.savez('z.npz', embeddings=np.random.default_rng(0).standard_normal((28, 8)), names=photos[:28])
    open('aside.txt', 'w').write('\n'.join([*photos[28:], 'gone.png']))
    words = ['photos', '--labels', 'labels.csv', '--embeddings', 'z.npz', '--exclude', 'aside.txt']
    with pytest.raises(SystemExit): query(*words)
    assert 'aside.txt: The folder has no image gone.png' in capsys.readouterr().err
    query(*words, '--skip-bad')
    out = capsys.readouterr().out
    assert '28 images, 9 of them labelled' in out and '2 of 30 images are put aside' in out and 'no embedding' not in out

@pytest.mark.parametrize('n', [9, 28, 29])
def test_nobody_who_made_no_audit_is_told_of_one(photos, capsys, n):
    pd.DataFrame(dict(image=photos[:n], label=[CLASSES[i % 3] for i in range(n)])).to_csv('some.csv', index=False)
    query('photos', '--labels', 'some.csv', '--steps', '1', '--budget', '1')
    assert 'audit' not in capsys.readouterr().out.replace(' An audit measures that.', '')

def test_labels_that_hold_an_audit_say_so(photos, capsys):
    from m2vaal_nb.own_images.audit import audit_order
    first = [photos[i] for i in audit_order(photos)[:12]]
    pd.DataFrame(dict(image=first, label=[CLASSES[i % 3] for i in range(12)])).to_csv('some.csv', index=False)
    query('photos', '--labels', 'some.csv', '--steps', '1', '--budget', '1')
    assert 'Of these labels 12 seem to be an audit' in capsys.readouterr().out

@pytest.mark.parametrize('words, at', [([], '/data/local-files/?d=photos/'), (['--url', 'http://x/'], 'http://x/'), (['--url', ''], '')])
def test_addresses_for_label_studio(photos, capsys, words, at):
    query('photos', '--labels', 'labels.csv', '--steps', '1', '--label-studio', 'tasks.json', *words)
    assert all(task['data']['image'] == at + task['data']['path'].replace(' ', '%20').replace('#', '%23') for task in json.load(open('tasks.json')))
    assert ('document root' in capsys.readouterr().out) == (not words)

@pytest.mark.parametrize('labelled', [2, 9, 30])
def test_all_images_in_the_end(photos, capsys, labelled):
    "A label where there is one, else what is predicted, as the choice has it; corrected by hand, it is a file of labels."
    truth = [CLASSES[i % 3] for i in range(30)]
    pd.DataFrame(dict(image=photos, label=[c if i < labelled else None for i,c in enumerate(truth)])).to_csv('some.csv', index=False)
    query('photos', '--labels', 'some.csv', '--budget', '5', '--steps', '40', '--predictions', 'all.csv')
    out, err = capsys.readouterr()
    rest = '.' if labelled == 30 else f', {30 - labelled} with what is predicted, with a probability of '
    assert f'all.csv: all 30 images, {labelled} of them with their label{rest}' in out and not err
    found = pd.read_csv('all.csv')
    assert list(found) == ['image', 'label', 'predicted', 'probability'] and list(found.image) == photos and list(found.label[:labelled]) == truth[:labelled]
    assert found.label[labelled:].isna().all() and found.probability[:labelled].isna().all() and found.probability[labelled:].between(1/3, 1).all()
    if labelled == 30: return
    chosen = pd.read_csv('next.csv').set_index('image')
    assert found.set_index('image').loc[chosen.index, ['predicted', 'probability']].equals(chosen[['predicted', 'probability']])
    found.loc[29, 'label'] = truth[29]
    found.to_csv('all.csv', index=False)
    query('photos', '--labels', 'some.csv,all.csv', '--budget', '5', '--steps', '1')
    assert f'30 images, {labelled + 1} of them labelled' in capsys.readouterr().out

def test_predictions_of_embeddings_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    z = np.random.default_rng(0).standard_normal((20, 4)) + 4*np.eye(4)[np.arange(20) % 2]
    np.savez('z.npz', embeddings=z, names=[f'{i}.jpg' for i in range(20)])
    Path('l.csv').write_text('image,label\n' + ''.join(f'{i}.jpg,{"ab"[i % 2]}\n' for i in range(6)))
    query_folder(labels='l.csv', embeddings='z.npz', budget=3, predictions='all.csv', say=str)
    found = pd.read_csv('all.csv')
    assert list(found.predicted[6:]) == ['a', 'b']*7 and list(found.label[:6]) == ['a', 'b']*3

def test_predictions_when_the_only_labelled_images_are_bad(photos, capsys):
    Path('photos', photos[0]).write_bytes(b'no image')
    Path('one.csv').write_text(f'image,label\n{photos[0]},cat\n')
    there = sorted(os.listdir())
    with pytest.raises(SystemExit): query('photos', '--labels', 'one.csv', '--classes', 'cat,dog', '--skip-bad', '--predictions', 'all.csv')
    assert 'no class can be predicted' in capsys.readouterr().err and sorted(os.listdir()) == there

@pytest.mark.parametrize('words, says', [
    (['photos', '--labels', 'labels.csv', 'two.csv', 'three.csv'], 'unrecognized arguments: two.csv three.csv; a pattern of files has to stand in quotes'),
    (['photos', '--labels', 'labels.csv', 'else', 'more'], 'unrecognized arguments: else more\n'),
    (['photos', '--labels', 'labels.csv', '--labels=two.csv'], '--labels is given twice; several files stand behind one, with commas between them')])
def test_more_words_than_asked_for(photos, capsys, words, says):
    for name in 'two.csv', 'three.csv': Path(name).touch()
    with pytest.raises(SystemExit) as stop: query(*words)
    assert stop.value.code == 2 and says in capsys.readouterr().err

@pytest.mark.parametrize('words, says', [
    (['z.npz'], 'There is no folder z.npz: it is a file. --embeddings z.npz'), (['photos', '--labels', 'photos'], 'photos is a folder: name files, or a pattern such as "photos/*.csv".')])
def test_a_file_for_a_folder_and_a_folder_for_a_file(photos, capsys, words, says):
    Path('z.npz').touch()
    with pytest.raises(SystemExit): query(*words)
    assert says in capsys.readouterr().err

@pytest.mark.parametrize('kind', ['csv', 'json'])
def test_labels_of_images_that_are_gone(photos, capsys, kind):
    "Refused, or left out where that is asked for; all of them gone is another folder."
    if kind == 'json':
        def task(name): return dict(id=1, data=dict(image=name, path=name), annotations=[dict(was_cancelled=False, result=[dict(type='choices', from_name='label', to_name='image', value=dict(choices=['cat' if name < '05' else 'dog']))])])
        Path('l.json').write_text(json.dumps([task(name) for name in photos[:9]]))
    else: os.rename('labels.csv', 'l.csv')
    words = ['photos', '--labels', f'l.{kind}', '--budget', '3', '--steps', '1']
    for name in photos[:2]: os.remove(f'photos/{name}')
    with pytest.raises(SystemExit): query(*words)
    assert 'no image 00 #.png' in capsys.readouterr().err
    query(*words, '--skip-bad')
    out = capsys.readouterr().out
    assert f'l.{kind}: labels of images that are gone, left out: 2 (00 #.png, 01 #.png).' in out and '28 images, 7 of them labelled' in out
    for name in photos[2:9]: os.remove(f'photos/{name}')
    with pytest.raises(SystemExit): query(*words, '--skip-bad', '--out', 'other.csv')
    assert 'has no image' in capsys.readouterr().err

def test_who_stops_listening_gets_the_files(photos):
    "As in: m2vaal_query … | head -1."
    import subprocess
    code = "from m2vaal_nb.cli import m2vaal_query; m2vaal_query()"
    p = subprocess.Popen([sys.executable, '-c', code, 'photos', '--labels', 'labels.csv', '--budget', '3', '--steps', '1'], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdout.close()
    assert p.stderr.read() == b'' and p.wait() == 0 and len(pd.read_csv('next.csv')) == 3

def test_labels_by_a_pattern(photos, capsys):
    table = pd.read_csv('labels.csv')
    os.mkdir('batches')
    table[:5].to_csv('batches/a.csv', index=False), table[5:].to_csv('batches/b.csv', index=False)
    said = []
    for labels in 'labels.csv', 'batches/*.csv', 'batches/a.csv,batches/?.csv', '**/[ab].csv':
        query('photos', '--labels', labels, '--budget', '3', '--steps', '1')
        said.append((capsys.readouterr().out, open('next.csv').read()))
    assert said == said[:1]*4

@pytest.mark.parametrize('seed', [2**32 - 1, 2**32, 2**70])
def test_a_large_seed(photos, capsys, seed):
    query('photos', '--labels', 'labels.csv', '--budget', '2', '--steps', '1', '--seed', str(seed))
    assert 'on the 9 labels at hand' in capsys.readouterr().out

def test_what_takes_time_has_a_bar(photos, monkeypatch):
    from m2vaal_nb.own_images import folder, images, query as one_query, accuracy as advice
    bars = []
    def counted(items, what, total=None):
        bars.append([what, 0])
        def go(bar=bars[-1]):
            for o in items: bar[1] += 1; yield o
        return go()
    for module in (images, one_query, advice): monkeypatch.setattr(module, 'progress', counted)
    folder.query_folder('photos', 'labels.csv', 5, say=lambda s: None, steps=4)
    assert bars == [['looking for colours', 30], ['reading images', 30], ['training', 4], ['cross-validation', 3], *[['training', 4]]*6]

def test_same_request_same_answer(photos, capsys):
    for out in 'a.csv', 'b.csv': query('photos', '--labels', 'labels.csv', '--budget', '5', '--steps', '3', '--out', out)
    assert open('a.csv').read() == open('b.csv').read()

def test_empty_rows_are_passed_over(photos, capsys):
    "Spreadsheets write them at the end, with as many commas as they like."
    raw = open('labels.csv', 'rb').read()
    spoil('labels.csv', b'\xef\xbb\xbf' + raw.replace(b'\n', b'\r\n') + b',\r\n,\r\n,,,\r\n\r\n')
    query('photos', '--labels', 'labels.csv', '--budget', '2', '--steps', '1')
    assert '30 images, 9 of them labelled' in capsys.readouterr().out

def test_folders_are_classes(photos, capsys, tmp_path):
    for c in CLASSES[:2]: (tmp_path/'photos'/c).mkdir()
    for i,name in enumerate(photos[:8]): (tmp_path/'photos'/name).rename(tmp_path/'photos'/CLASSES[i % 2]/name)
    query('photos', '--labels', 'folders', '--classes', 'cat,dog', '--budget', '2', '--steps', '1')
    assert '30 images, 8 of them labelled; ' in (out := capsys.readouterr().out) and '8 labelled, 2 classes: cat 4, dog 4.' in out

def test_colour_other_sizes_and_hidden_files(photos, capsys, tmp_path):
    Image.new('RGBA', (9, 30)).save('photos/zz.png')
    Image.new('P', (40, 12)).save('photos/zz.gif')
    Image.new('RGB', (12, 12)).save('photos/50.JPG')
    for junk in '.hidden.png', '._zz.png': (tmp_path/'photos'/junk).write_bytes(b'junk')
    query('photos', '--labels', 'labels.csv', '--budget', '24', '--steps', '1', '--size', '10')
    out = capsys.readouterr().out
    assert '33 images, 9 of them labelled; seen in colour, at 10 × 10 pixels, the shorter side resized, then cut to the square in the middle.' in out
    assert '1 of 33 images may be transparent' in out and '3 of 33 images are of one colour, or nearly (50.JPG, zz.gif, zz.png).' in out

def test_label_studio_serves_the_names_it_was_given(photos):
    from urllib.parse import parse_qs, urlsplit
    task, = label_studio_tasks(pd.DataFrame(dict(image=[photos[-1]], predicted=['cat'], probability=[.5])), 'margin', '/data/local-files/?d=photos/')
    assert parse_qs(urlsplit(task['data']['image']).query) == dict(d=['photos/' + photos[-1]])
    task['data'].pop('path')
    task['annotations'] = [dict(result=task['predictions'][0]['result'])]
    open('export.json', 'w').write(json.dumps([task]))
    assert label_studio_labels('export.json') == {'photos/' + photos[-1]: 'cat'}

def check_task(task, classes):
    "The keys that https://labelstud.io/guide/predictions asks for."
    assert set(task) <= {'data', 'predictions'} and isinstance(task['data']['image'], str)
    for p in task['predictions']:
        assert isinstance(p['model_version'], str) and 0 <= p['score'] <= 1
        r, = p['result']
        assert set(r) == {'id', 'from_name', 'to_name', 'type', 'value'} and isinstance(r['id'], str)
        assert (r['from_name'], r['to_name'], r['type']) == ('label', 'image', 'choices') and len(r['value']['choices']) == 1 and r['value']['choices'][0] in classes

def test_label_studio_format(photos, capsys):
    query('photos', '--labels', 'labels.csv', '--budget', '5', '--steps', '1', '--label-studio', 'tasks.json')
    tasks, config = json.loads(open('tasks.json').read()), ElementTree.parse('tasks.xml').getroot()
    for t in tasks: check_task(t, CLASSES)
    assert [t['data']['path'] for t in tasks] == list(pd.read_csv('next.csv').image) and all(t['predictions'] for t in tasks)
    image, label = config
    assert (image.tag, image.get('name'), image.get('value')) == ('Image', 'image', '$image')
    assert (label.tag, label.get('name'), label.get('toName')) == ('Choices', 'label', 'image') and [c.get('value') for c in label] == CLASSES

def test_label_studio_says_so_too(photos, capsys):
    "Label Studio's own checks, where its SDK is installed."
    LabelInterface = pytest.importorskip('label_studio_sdk.label_interface').LabelInterface
    for labels in (['--labels', 'labels.csv'], ['--classes', ','.join(CLASSES)]):
        query('photos', *labels, '--budget', '5', '--steps', '1', '--label-studio', 'tasks.json')
        interface = LabelInterface(open('tasks.xml').read())
        interface.validate()
        for t in json.loads(open('tasks.json').read()):
            assert interface.validate_task(dict(data=t['data'])) # given predictions too, the SDK calls itself wrongly
            for p in t['predictions']: assert interface.validate_prediction(p) and not interface.validate_prediction(p, return_errors=True)
            for p in t['predictions']: assert not interface.validate_prediction({**p, 'result': [{**p['result'][0], 'value': dict(choices=['cow'])}]})

def test_real_images_from_an_empty_folder(tmp_path, monkeypatch, capsys):
    "300 PNG files of Fashion-MNIST, 30 labelled: made short. At full length it was timed by hand."
    monkeypatch.chdir(tmp_path)
    whole, folder = load_dataset(), tmp_path/'images'
    folder.mkdir()
    for i,x in enumerate(whole.x[:300]): Image.fromarray(x[0].numpy()).save(folder/f'{i:03}.png')
    truth = {f'{i:03}.png': whole.classes[y] for i,y in enumerate(whole.y[:300])}
    pd.DataFrame(dict(image=truth.keys(), label=[c if i < 30 else None for i,c in enumerate(truth.values())])).to_csv('labels.csv', index=False)
    query('images', '--labels', 'labels.csv', '--method', 'm2_vaal_no_adv', '--label-studio', 'tasks.json', '--size', '8', '--steps', '10')
    first = pd.read_csv('next.csv')
    assert len(set(first.image)) == 20 and not set(first.image) & set(list(truth)[:30])
    first.assign(label=first.image.map(truth)).to_csv('next.csv', index=False)
    query('images', '--labels', 'labels.csv,next.csv', '--size', '8', '--steps', '10', '--out', 'then.csv')
    out = capsys.readouterr().out
    assert '300 images, 50 of them labelled; seen in grey, at 8 × 8 pixels, the shorter side shrunk.' in out and '50 labelled, 10 classes: ' in out
    assert not set(pd.read_csv('then.csv').image) & set(first.image)

def test_a_pool_in_a_file_is_not_read_whole(tmp_path, monkeypatch):
    "Larger than what may be in memory at once: what `view_pool` is given at a time is limited."
    from m2vaal_nb.own_images import query as q
    x = np.lib.format.open_memmap(tmp_path/'x.npy', 'w+', np.uint8, (10_000, 1, 4, 4))
    x[:] = np.random.default_rng(0).integers(256, size=x.shape)
    y, seen, view_pool = np.full(len(x), -1), [], q.view_pool
    y[:6] = [0, 1]*3
    def watched(nets, learner, pool, *rest):
        seen.append(len(pool.unlabelled))
        return view_pool(nets, learner, pool, *rest)
    monkeypatch.setattr(q, 'view_pool', watched)
    pool = known_pool(np.load(tmp_path/'x.npy', mmap_mode='r'), y, ('a', 'b'))
    assert len(set(next_images(pool, 50, steps=1).id)) == 50
    assert sum(seen) == len(x)-6 and max(seen) <= 4096

# --- what is wrong ---
def spoil(name, raw): open(name, 'wb').write(raw)

WRONG = { # what is wrong: (what is done to the files before, the words, what the sentence says)
    'no such folder': (None, ['fotos'], 'no folder fotos'),
    'a file, not a folder': (None, ['labels.csv'], 'no folder labels.csv'),
    'a folder without images': (None, ['empty'], 'holds no images'),
    'no such labels': (None, ['photos', '--labels', 'label.csv'], 'no file label.csv'),
    'other columns': (lambda: spoil('l.csv', b'file,class\n'), ['photos', '--labels', 'l.csv'], 'has no column image'),
    'semicolons': (lambda: spoil('l.csv', b'image;class\n00 #.png;cat\n'), ['photos', '--labels', 'l.csv'], 'no column label (columns found: image, class)'),
    'a column twice': (lambda: spoil('l.csv', b'image,label,label\n00 #.png,cat,dog\n'), ['photos', '--labels', 'l.csv'], 'two columns label'),
    'a spreadsheet, not a CSV': (lambda: spoil('l.csv', b'PK\x03\x04\xff\xfe\x00'), ['photos', '--labels', 'l.csv'], 'not a CSV in UTF-8'),
    'an image twice': (lambda: spoil('l.csv', b'image,label\na,cat\na,\n'), ['photos', '--labels', 'l.csv'], 'names a in lines 2 and 3'),
    'a row without an image': (lambda: spoil('l.csv', b'label,image\ncat\ndog\n'), ['photos', '--labels', 'l.csv'], 'Line 2 of l.csv names no image'),
    'a comma too many': (lambda: spoil('l.csv', b'image,label\n00 #.png,hen, small\n'), ['photos', '--labels', 'l.csv'], 'Line 2 of l.csv has more values'),
    'a quote that is not closed': (lambda: spoil('l.csv', b'image,label\n"00 #.png,cat\n01 #.png,dog\n'), ['photos', '--labels', 'l.csv'], 'Line 2 of l.csv is not CSV'),
    'an image that is not there': (lambda: spoil('l.csv', b'image,label\nx.png,cat\n'), ['photos', '--labels', 'l.csv'], 'l.csv: The folder has no image x.png'),
    'an image in another case': (lambda: spoil('l.csv', b'image,label\n00 #.PNG,cat\n'), ['photos', '--labels', 'l.csv'], 'did you mean 00 #.png?'),
    'a folder in another case': (None, ['photos', '--labels', 'folders', '--classes', 'New Ones,cat'], 'There is a folder new ones: the classes are New Ones, cat. Did you mean New Ones?'),
    'a class in another case': (None, ['photos', '--labels', 'labels.csv', '--classes', 'Cat,dog,hen & co'], "label 'cat': the classes are Cat, dog, hen & co. Did you mean Cat?"),
    'a class that is not named': (None, ['photos', '--labels', 'labels.csv', '--classes', 'cat,dog'], "label 'hen & co'"),
    'one class': (lambda: spoil('l.csv', b'image,label\n00 #.png,cat\n'), ['photos', '--labels', 'l.csv'], 'at least two different ones'),
    'a class twice': (None, ['photos', '--classes', 'cat,cat'], 'list of different names'),
    'files that disagree': (lambda: spoil('l.csv', b'image,label\n00 #.png,dog\n'), ['photos', '--labels', 'labels.csv,l.csv'], "l.csv says 'dog' of 00 #.png, but labels.csv says 'cat'"),
    'JSON that is none': (lambda: spoil('l.json', b'{'), ['photos', '--labels', 'l.json'], 'not an export of Label Studio'),
    'JSON of something else': (lambda: spoil('l.json', b'{"a": 1}'), ['photos', '--labels', 'l.json'], 'not an export of Label Studio'),
    'annotations of another kind': (lambda: spoil('l.json', b'[{"data": {"image": "a"}, "annotations": [{"result": "cat"}]}]'), ['photos', '--labels', 'l.json'], 'not an export of Label Studio'),
    'no budget': (None, ['photos', '--budget', '0'], '`budget` is 0'),
    'a negative budget': (None, ['photos', '--budget=-3'], '`budget` is -3'),
    'half a budget': (None, ['photos', '--budget', '1.5'], "'1.5' is not a whole number"),
    'a budget without end': (None, ['photos', '--budget', 'inf'], "'inf' is not a whole number"),
    'an empty budget': (None, ['photos', '--budget', ''], "'' is not a whole number"),
    'a size in words': (None, ['photos', '--size', 'large'], "'large' is not a whole number"),
    'a negative size': (None, ['photos', '--size=-8'], '`size` is -8'),
    'steps in words': (None, ['photos', '--steps', 'many'], "'many' is not a whole number"),
    'an empty image': (lambda: spoil('photos/a.png', b''), ['photos'], 'a.png (empty); remove them, or leave them out with --skip-bad'),
    'a page instead of an image': (lambda: spoil('photos/a.jpg', b'<!doctype html>'), ['photos'], 'a.jpg (HTML or XML); remove them'),
    'half an image': (lambda: Image.new('RGB', (99, 99)).save('photos/a.bmp') or spoil('photos/a.bmp', open('photos/a.bmp', 'rb').read()[:5000]), ['photos'], 'a.bmp (damaged); remove them'),
    'a placeholder of Git LFS': (lambda: spoil('photos/a.png', b'version https://git-lfs.github.com/spec/v1\n'), ['photos'], 'a.png (a placeholder of Git LFS)'),
    'a TIFF of another kind': (lambda: spoil('photos/a.tif', b'II*\0\x08\0\0\0\0\0\0\0\0\0'), ['photos'], 'a.tif (a TIFF of a kind for which there is no reader)'),
    'HEIC': (lambda: spoil('photos/a.heic', b'\0\0\0\x18ftypheic'), ['photos'], 'a.heic (HEIC, for which there is no reader)'),
    'HEIC in capitals': (lambda: spoil('photos/A.HEIF', b'\0\0\0\x18ftypmif1'), ['photos'], 'A.HEIF (HEIC, for which there is no reader)'),
    'HEIC called JPEG': (lambda: spoil('photos/a.jpg', b'\0\0\0\x18ftypheic'), ['photos'], 'a.jpg (HEIC, for which there is no reader)'),
    'nothing but HEIC': (lambda: spoil('empty/a.heic', b'\0\0\0\x18ftypheic'), ['empty'], '1 of 1 images could not be read'),
    'nothing but HEIC, left out': (lambda: spoil('empty/a.heic', b'\0\0\0\x18ftypheic'), ['empty', '--skip-bad'], 'none is left'),
    'nothing but halves, left out': (lambda: Image.new('RGB', (99, 99)).save('empty/a.bmp') or spoil('empty/a.bmp', open('empty/a.bmp', 'rb').read()[:5000]), ['empty', '--skip-bad'], 'a.bmp (damaged); none is left'),
    'HEIC that is hidden': (lambda: spoil('empty/.a.heic', b''), ['empty'], 'holds no images'),
    'several bad images': (lambda: spoil_some(None), ['photos', '--labels', 'labels.csv'], '5 of 32 images could not be read: 00 #.png (empty), 05 #.png (HTML or XML), 1.HEIC'),
    'an empty file to be overwritten': (lambda: spoil('l.csv', b''), ['photos', '--out', 'l.csv'], 'l.csv would be lost'),
    'a CSV without labels to be overwritten': (lambda: spoil('l.csv', b'image,label\n00 #.png,\n'), ['photos', '--out', 'l.csv'], 'l.csv would be lost'),
    'another interface to be overwritten': (lambda: spoil('l.xml', b'<View/>'), ['photos', '--classes', 'cat,dog', '--label-studio', 'l.json'], 'l.xml would be lost'),
    'a budget in words': (None, ['photos', '--budget', 'all'], "'all' is not a whole number"),
    'an unknown method': (None, ['photos', '--method', 'best'], "Unknown method 'best'"),
    'a size too small': (None, ['photos', '--size', '3'], '`size` is 3'),
    'no size': (None, ['photos', '--size', '0'], '`size` is 0'),
    'no steps': (None, ['photos', '--steps', '0'], '`steps` is 0'),
    'a negative seed': (None, ['photos', '--seed', '-1'], '`seed` is -1'),
    'an unknown device': (None, ['photos', '--device', 'tpu'], 'choose one of auto, cpu, cuda'),
    'a damaged image': (lambda: spoil('photos/29.png', b'\x89PNG\r\n\x1a\n'), ['photos'], '1 of 31 images could not be read: 29.png (no image); remove them'),
    'a folder to write to': (None, ['photos', '--out', 'empty'], 'empty is a folder'),
    'a folder that cannot be': (None, ['photos', '--out', 'labels.csv/x.csv'], 'Cannot write to labels.csv'),
    'labels to be overwritten': (None, ['photos', '--labels', 'labels.csv', '--out', 'labels.csv'], 'labels.csv would be lost'),
    'an image to be overwritten': (None, ['photos', '--out', 'photos/00 #.png'], '00 #.png would be lost'),
    'labels with semicolons to be overwritten': (lambda: spoil('l.csv', b'image;label\n00 #.png;cat\n'), ['photos', '--out', 'l.csv'], 'l.csv would be lost'),
    'labels with a double row to be overwritten': (lambda: spoil('l.csv', b'image,label\na,cat\na,cat\n'), ['photos', '--out', 'l.csv'], 'l.csv would be lost'),
    'a spreadsheet to be overwritten': (lambda: spoil('l.xlsx', b'PK\x03\x04\xff\xfe\x00'), ['photos', '--out', 'l.xlsx'], 'l.xlsx would be lost'),
    'another CSV to be overwritten': (lambda: spoil('l.csv', b'image,label\n'), ['photos', '--out', 'l.csv'], 'l.csv would be lost'),
    'our choice with a label to be overwritten': (lambda: spoil('l.csv', (HEADER + '00 #.png,cat,dog,0.5,-0.1\n').encode()), ['photos', '--out', 'l.csv'], 'l.csv would be lost'),
    'an export to be overwritten': (lambda: spoil('l.json', b'[{"id": 1, "data": {"image": "a", "path": "a"}, "annotations": [], "predictions": []}]'), ['photos', '--classes', 'cat,dog', '--label-studio', 'l.json'], 'l.json would be lost'),
    'an interface changed by hand to be overwritten': (lambda: spoil('l.xml', label_studio_config(['cat', 'dog']).replace('<Choice ', '<Choice hotkey="1" ', 1).encode()), ['photos', '--classes', 'cat,dog', '--label-studio', 'l.json'], 'l.xml would be lost'),
    'one file for two': (None, ['photos', '--out', 'x.json', '--label-studio', 'x.json'], 'name two files'),
    'an interface over another file': (None, ['photos', '--out', 'x.json', '--label-studio', 'x.xml'], 'name two files'),
    'predictions over the choice': (None, ['photos', '--labels', 'labels.csv', '--out', 'x.csv', '--predictions', 'x.csv'], 'name two files'),
    'predictions over the choice, by another name': (None, ['photos', '--labels', 'labels.csv', '--out', 'x.csv', '--predictions', 'empty/../x.csv'], 'name two files'),
    'predictions over labels': (None, ['photos', '--labels', 'labels.csv', '--predictions', 'labels.csv'], 'labels.csv would be lost'),
    'predictions over others, maybe corrected by hand': (lambda: spoil('all.csv', b'image,label,predicted,probability\n00 #.png,,cat,.5\n'), ['photos', '--labels', 'labels.csv', '--predictions', 'all.csv'], 'all.csv would be lost'),
    'predictions where nothing is labelled': (None, ['photos', '--predictions', 'c.csv'], 'no class can be predicted'),
    'a pattern without quotes': (None, ['labels.csv', '--labels', 'labels.csv'], 'A pattern of files has to stand in quotes'),
    'a pattern of no file': (None, ['photos', '--labels', 'batches/*.csv'], 'No file is called like batches/*.csv'),
    'Label Studio without classes': (None, ['photos', '--label-studio', 'tasks.json'], 'needs the names of the classes'),
}

@pytest.mark.parametrize('what', WRONG)
def test_what_is_wrong_costs_one_sentence(what, photos, capsys, tmp_path):
    before, words, says = WRONG[what]
    (tmp_path/'empty').mkdir()
    if before: before()
    def files(): return {str(f): f.read_bytes() for f in tmp_path.rglob('*') if f.is_file()}
    there = files()
    with pytest.raises(SystemExit) as stop: query(*words)
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and not out and err.count('\n') == 1 and says in err and err.startswith('m2vaal_query: ')
    assert files() == there

def test_a_budget_above_the_images_is_served_with_what_is_left(photos, capsys):
    query('photos', '--labels', 'labels.csv', '--budget', '22', '--steps', '1')
    out, err = capsys.readouterr()
    assert '22 images were asked for, and 21 have no label: these are all of them.' in out and not err
    assert 'the 21 images to label next' in out and len(pd.read_csv('next.csv')) == 21

@pytest.mark.parametrize('x,y,says', [
    (np.zeros((3, 8, 8), np.uint8), None, 'must have shape'), (np.zeros((3, 1, 8, 8)), None, 'must be uint8'), (np.zeros((3, 1, 8, 8), np.uint8), [0, 1], '3 integers'),
    (np.zeros((3, 1, 8, 8), np.uint8), [0., 1., -1.], '3 integers'), (np.zeros((3, 1, 8, 8), np.uint8), [0, 1, 2], 'between 0 and 1')])
def test_arrays_that_are_no_pool(x, y, says):
    with pytest.raises(ValueError, match=says): known_pool(x, y, ('a', 'b'))

def test_a_failed_write_leaves_what_was_there(photos, monkeypatch, capsys):
    from m2vaal_nb.foundations import files
    spoil('next.csv', HEADER.encode())
    def full(*_): raise OSError(28, 'No space left on device', 'next.csv')
    monkeypatch.setattr(files.os, 'replace', full)
    with pytest.raises(SystemExit): query('photos', '--labels', 'labels.csv', '--budget', '2', '--steps', '1')
    assert 'No space left on device. Files are written whole or not at all' in capsys.readouterr().err
    assert open('next.csv').read() == HEADER and not [f for f in os.listdir() if f.endswith('.part')]
