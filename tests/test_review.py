"Labels that may be wrong: which are doubted, and what comes of a second look."
import html
from dataclasses import replace
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from m2vaal_nb.cli import m2vaal_query
from m2vaal_nb.experiments import protocol_for
from m2vaal_nb.loop import Protocol
from m2vaal_nb.own_images.folder import query_folder
from m2vaal_nb.own_images.query import known_pool, label_folds
from m2vaal_nb.own_images.report import findings, page
from m2vaal_nb.own_images.review import (
    REVIEW, SUSPECT, about_review, agreement, label_probabilities, label_review, suspected_by_chance, suspects)
from test_audit import LINEAR, blobs, names_of

P = protocol_for(Protocol(), LINEAR)

def text_of(pool, p):
    "A report on these labels."
    return html.unescape(page(findings(pool, names_of(pool), pd.DataFrame(), p, review=label_review(pool, p))))

# --- which are doubted ---
def test_a_wrong_label_is_found_and_a_right_one_is_not():
    pool, y = blobs(300, 300)
    spoilt = pool.y.copy()
    spoilt[[5, 50]] = (spoilt[[5, 50]] + 1) % 3
    bad = known_pool(pool.x, spoilt, 'abc')
    p = protocol_for(Protocol(), LINEAR)
    p_L_C = label_probabilities(bad, p)
    assert torch.allclose(p_L_C.sum(1), torch.ones(300), atol=1e-5)
    found = suspects(bad, p_L_C)
    assert found.of_label.is_monotonic_increasing and (found.of_label < SUSPECT).all() and (found.label != found.predicted).all()
    assert {5, 50} <= {*suspects(bad, p_L_C, below=.05).id[:10]}
    assert not len(suspects(bad, p_L_C, below=0))

@pytest.mark.parametrize('images', [False, True])
def test_a_class_unknown_to_its_judge_is_not_suspected(images):
    "One label of a class, or all of them in one fold: the model that judges them cannot give that class anything."
    pool, y = blobs(60, 60, classes='abcde')
    y = y.copy()
    y[7], y[[20, 21]] = 3, 4
    x = np.random.default_rng(0).integers(256, size=(60, 1, 8, 8)).astype(np.uint8) if images else pool.x
    few = known_pool(x, y, 'abcde')
    p = protocol_for(Protocol(steps=1), 'margin' if images else LINEAR)
    p_L_C = label_probabilities(few, p)
    never = p_L_C.isnan().any(1).numpy()
    splits = [*label_folds(few.y, 3 if images else 5, 0)]
    alone = np.concatenate([test[~np.isin(y[test], y[train])] for train,test in splits])
    assert never[7] and set(np.flatnonzero(never)) == set(alone) and p_L_C[never].isnan().all()
    assert torch.allclose(p_L_C[~never].sum(1), torch.ones((~never).sum()), atol=1e-5)
    found, other = suspects(few, p_L_C, below=1), p_L_C.argmax(-1).numpy() != few.y
    assert set(found.id) == set(few.ids[~never & other]) and found.probability.notna().all()
    assert about_review(label_review(few, p)) in text_of(few, p)

def test_all_labels_of_classes_of_their_own():
    "Nothing can be judged, and nothing is suspected."
    n = 12
    g = np.random.default_rng(0)
    h = g.normal(size=(n, 5)).astype('f4')
    pool = known_pool(h/np.linalg.norm(h, axis=1, keepdims=True), np.arange(n), [f'c{i}' for i in range(n)])
    p_L_C = label_probabilities(pool, protocol_for(Protocol(), LINEAR))
    assert p_L_C.isnan().all() and not len(suspects(pool, p_L_C)) and label_review(pool, protocol_for(Protocol(), LINEAR)) is None

def test_probabilities_that_are_none():
    pool, _ = blobs(60, 10)
    good = np.full((10, 3), 1/3)
    assert not len(suspects(pool, good))
    half, negative = good.copy(), good.copy()
    half[3,1], negative[2] = np.nan, -1
    for bad, says in (half, 'row 3'), (negative, 'row 2'), (good[:9], '9'), (good[0], 'shape'), ('abc', 'Probabilities'):
        with pytest.raises(ValueError, match=says): suspects(pool, bad)

def test_agreement_is_counted_over_the_labels_that_are_judged():
    pool = known_pool(np.eye(4), [0, 1, 1, -1], ['a', 'b'])
    p_L_C = torch.tensor([[torch.nan]*2, [.1, .9], [.8, .2]])
    assert agreement(pool, p_L_C) == (1, 2)

WORLDS = { # n labels, classes; scatter
    'few': (60, 3, .3), 'three': (240, 3, .3), 'ten': (300, 10, .2), 'hard': (240, 3, .45)}

@pytest.mark.parametrize('name', WORLDS)
@pytest.mark.parametrize('part, least', [(0, 0), (.05, .4), (.1, .3)])
def test_wrong_labels_are_found_and_right_ones_are_counted(name, part, least):
    "At the default cut, over ten worlds: a part of the wrong labels, and about as many right ones as would be there by chance."
    n, C, scatter = WORLDS[name]
    wrong, right, chance = [], [], []
    for seed in range(10):
        g = np.random.default_rng(seed)
        y, n_wrong = g.integers(C, size=n), int(part*n)
        h = np.eye(C, 12)[y] + scatter*g.normal(size=(n, 12))
        spoilt = np.r_[(y[:n_wrong] + g.integers(1, C, n_wrong)) % C, y[n_wrong:]]
        pool = known_pool((h/np.linalg.norm(h, axis=1, keepdims=True)).astype('f4'), spoilt, [f'c{i}' for i in range(C)])
        p_L_C = label_probabilities(pool, protocol_for(Protocol(), LINEAR), seed)
        found = suspects(pool, p_L_C).id < n_wrong
        wrong.append(found.sum()), right.append((~found).sum()), chance.append(suspected_by_chance(p_L_C))
    if name != 'hard': assert np.mean(wrong) >= least*int(part*n)
    off = np.mean(right) - np.mean(chance)
    assert off < 2.5 and (part or off > -2.5)            # where some are wrong, heads learn from these, too

def test_none_is_suspected_by_chance_where_none_is_judged():
    assert suspected_by_chance(torch.full((4, 2), torch.nan)) == 0
    assert abs(suspected_by_chance(torch.tensor([[.99, .01], [.985, .015]])) - .025) < 1e-6
    assert suspected_by_chance(torch.tensor([[.98, .02]]), below=.02) == 0

@pytest.mark.parametrize('right,doubts', [(0, False), (38, False), (39, True), (80, True)])
def test_models_that_are_not_better_than_the_largest_class_doubt_no_label(right, doubts):
    "Of 80 labels the largest class has 30: the lower end passes that between 38 and 39 (Wilson's interval, by hand)."
    pool, _ = blobs(120, 80)
    assert np.bincount(pool.y).max() == 30
    r = replace(label_review(pool, P), right=right, judged=80)
    text = about_review(r)
    assert ('too seldom' in text) != doubts and ('below 2%' in text) == doubts == r.knows

def test_models_that_know_the_largest_class_alone_doubt_no_label():
    "Of 300 labels 5 are of a rare class, and features know nothing: 294 are named rightly."
    g = np.random.default_rng(0)
    h = g.normal(size=(320, 6)).astype('f4')
    y = np.where(np.arange(320) < 300, (np.arange(320) % 60 == 0).astype(int), -1)
    pool = known_pool(h/np.linalg.norm(h, axis=1, keepdims=True), y, ['fine', 'defect'])
    r = label_review(pool, P)
    assert r.right > 280 and r.below == len(suspects(pool, label_probabilities(pool, P))) > 0 and not len(r.doubted)
    assert 'too seldom' in about_review(r) and 'too seldom' in text_of(pool, P)

@pytest.mark.parametrize('n, classes, judged', [(9, 2, False), (10, 2, True), (10, 1, False), (10, 10, False), (0, 1, False)])
def test_how_few_labels_are_judged(n, classes, judged):
    pool, _ = blobs(40, 40)
    y = np.where(np.arange(40) < n, np.arange(40) % classes, -1)
    assert (label_review(known_pool(pool.x, y, [*'abcdefghij']), P) is not None) == judged

@pytest.mark.parametrize('part', [0, .5, 1])
def test_what_was_looked_at_again_is_not_doubted_and_still_counted(part):
    "What there would be by chance is said of all labels, and so is what there is."
    pool, y = blobs(300, 300)
    spoilt = np.where(np.arange(300) % 20, y, (y + 1) % 3)
    bad = known_pool(pool.x, spoilt, 'abc')
    r, p_L_C = label_review(bad, P), label_probabilities(bad, P)
    assert (p_L_C.argmax(1).numpy() != spoilt).sum() == len(r.doubted) > r.below == len(r.suspects) and r.seen == 0
    again = r.doubted.id[:int(part*len(r.doubted))]
    less = label_review(bad, P, reviewed=again)
    assert less.doubted.id.tolist() == r.doubted.id[len(again):].tolist() and less.below == r.below == less.seen + len(less.suspects)
    assert less.by_chance == r.by_chance == suspected_by_chance(p_L_C) and (less.right, less.judged) == (r.right, r.judged) == agreement(bad, p_L_C)
    assert ('looked at again' in about_review(less)) == (len(again) > 0)

def test_reviewed_ids_that_are_no_labels():
    pool, _ = blobs(60, 30)
    r = label_review(pool, P, reviewed=pool.unlabelled)
    assert r.seen == 0 and len(r.doubted) == len(label_review(pool, P).doubted)
    for few in pool, known_pool(pool.x):                              # also where no label can be judged
        with pytest.raises(ValueError, match='Ids must be numbers'): label_review(few, P, reviewed=['a'])

# --- in a folder ---
@pytest.fixture
def slips(tmp_path, monkeypatch):
    "Embeddings of 120 images and their labels, of which six are wrong; what the images are."
    monkeypatch.chdir(tmp_path)
    pool, y = blobs(120, 0)
    names = [f'sub/{i}.png' for i in range(120)]
    np.savez('h.npz', names=names, embeddings=pool.x.numpy())
    truth = pd.Series([['cat', 'dog', 'hen'][c] for c in y], names)
    given = truth.copy()
    given.iloc[:6] = [['cat', 'dog', 'hen'][(c + 1) % 3] for c in y[:6]]
    given.rename_axis('image').rename('label').reset_index().to_csv('labels.csv', index=False)
    return truth

def ask(**kw):
    said = []
    query_folder(labels='labels.csv', embeddings='h.npz', say=said.append, **kw)
    return ' '.join(said)

def test_a_second_look_from_file_to_file(slips):
    said = ask(review='review.csv')
    found = pd.read_csv('review.csv')
    assert list(found) == REVIEW and found.label.isna().all() and found.given_probability.is_monotonic_increasing
    assert f'likelier ({len(found)} labels)' in said and '--reviewed' in said and (found.given != found.predicted).all()
    wrong = found.image.isin(slips.index[:6])
    assert wrong.sum() >= 3
    with pytest.raises(ValueError, match='review.csv would be lost'): ask(review='review.csv', out='n.csv') # given may have been changed
    assert not Path('n.csv').exists()
    found['label'] = [*slips[found.image]]
    found.to_csv('review.csv', index=False)
    with pytest.raises(ValueError, match='review.csv would be lost'): ask(review='review.csv')
    said = ask(reviewed='review.csv', review='more.csv', predictions='all.csv', report='r.html')
    assert f'Labels looked at again: {len(found)}, of which {wrong.sum()} changed.' in said
    assert 'Labels that may be wrong' in Path('r.html').read_text()
    labels = pd.read_csv('all.csv', index_col='image').label
    assert (labels[found.image] == slips[found.image]).all() and len(labels) == 120
    assert not {*pd.read_csv('more.csv').image} & {*found.image}           # other labels that are doubted now

def test_a_row_that_stays_empty_says_nothing(slips):
    ask(review='review.csv')
    found = pd.read_csv('review.csv', dtype=dict(label=object))
    found.loc[0, 'label'] = found.given[0]                             # it was right
    found.to_csv('review.csv', index=False)
    assert 'Labels looked at again: 1, of which 0 changed.' in ask(reviewed='review.csv', review='more.csv')
    assert pd.read_csv('more.csv').image.tolist() == found.image[1:].tolist()

def test_files_that_disagree_are_told_of_the_second_look(slips):
    image = slips.index[0]
    Path('other.csv').write_text(f'image,label\n{image},{slips[image]}\n')
    with pytest.raises(ValueError, match=r'make them agree. A file of labels that were looked at again overrules others .*\(--reviewed\)'):
        query_folder(labels=['labels.csv', 'other.csv'], embeddings='h.npz', say=str)
    assert 'Labels looked at again: 1, of which 1 changed.' in ask(reviewed='other.csv')
    Path('third.csv').write_text(f'image,label\n{image},{[c for c in ("cat", "dog", "hen") if c != slips[image]][0]}\n')
    with pytest.raises(ValueError, match='make them agree.$'): ask(reviewed=['other.csv', 'third.csv'])

def test_a_second_look_may_bring_first_labels(slips):
    table = pd.read_csv('labels.csv')
    table[:100].to_csv('labels.csv', index=False)
    table[98:102].assign(label=[*slips[98:102]]).to_csv('again.csv', index=False)
    said = ask(reviewed='again.csv', out='n.csv', budget=3)
    assert 'Labels looked at again: 4, of which 0 changed, 2 had none before.' in said and '120 images, 102 of them labelled' in said

@pytest.mark.parametrize('text, says', [
    ('image,label\nnowhere.png,cat\n', 'no image nowhere.png'), ('image\n0.png\n', 'label'), ('', 'again.csv')])
def test_a_second_look_that_cannot_be_read(slips, text, says):
    Path('again.csv').write_text(text)
    with pytest.raises(ValueError, match=says): ask(reviewed='again.csv', review='r.csv')
    with pytest.raises(ValueError, match='no file none.csv'): ask(reviewed='none.csv')
    assert not Path('r.csv').exists()

def test_too_few_labels_to_judge(slips):
    pd.read_csv('labels.csv')[:9].to_csv('labels.csv', index=False)
    said = ask(review='review.csv', out='n.csv')
    assert 'No label can be judged by the others yet, which takes 10 of them' in said and not Path('review.csv').exists()

def test_where_no_label_is_suspected_nothing_is_written(slips):
    easy = np.repeat(np.eye(3, 5), 40, 0) + .01*np.random.default_rng(0).normal(size=(120, 5))
    names = [f'{i}.png' for i in range(120)]
    np.savez('h.npz', names=names, embeddings=easy)
    pd.DataFrame(dict(image=names, label=np.repeat(['cat', 'dog', 'hen'], 40))).to_csv('labels.csv', index=False)
    said = ask(review='review.csv')
    assert 'No label has a probability below 2%' in said and 'review.csv is not written.' in said and not Path('review.csv').exists()
    Path('review.csv').write_text('mine')
    with pytest.raises(ValueError, match='would be lost'): ask(review='review.csv')

def test_the_command_takes_both(slips, monkeypatch, capsys):
    def command(*words):
        monkeypatch.setattr('sys.argv', ['m2vaal_query', '--embeddings', 'h.npz', '--labels', 'labels.csv', *words])
        m2vaal_query()
        return capsys.readouterr().out
    assert 'review.csv: ' in command('--review', 'review.csv')
    found = pd.read_csv('review.csv')
    found['label'] = [*slips[found.image]]
    for i in range(2): found[i::2].to_csv(f'part{i}.csv', index=False)
    assert f'Labels looked at again: {len(found)},' in command('--reviewed', 'part0.csv,part1.csv')
    assert f'Labels looked at again: {len(found)},' in command('--reviewed', 'part*.csv')

def test_a_file_in_which_nothing_was_filled_in(slips):
    ask(review='review.csv')
    n = len(pd.read_csv('review.csv'))
    assert 'Labels looked at again: none, for the column label is empty.' in ask(reviewed='review.csv', review='more.csv')
    assert len(pd.read_csv('more.csv')) == n

@pytest.mark.parametrize('order', ['as in the folder', 'backwards'])
@pytest.mark.parametrize('kind', ['alone', 'folder', 'exclude', 'skip_bad'])
def test_names_stand_for_the_right_images(slips, order, kind):
    "Embeddings in another order, images put aside or without any: what is doubted is told by its name."
    from PIL import Image
    z = np.load('h.npz')
    names, h = z['names'].tolist(), z['embeddings']
    rows = np.arange(120) if order == 'as in the folder' else np.arange(120)[::-1]
    if kind == 'skip_bad': rows = rows[rows != 7]                     # it lies in the folder, and has no embedding
    np.savez('h.npz', names=[names[i] for i in rows], embeddings=h[rows])
    options = {}
    if kind != 'alone':
        Path('photos/sub').mkdir(parents=True)
        for name in names: Image.new('L', (8, 8)).save(f'photos/{name}')
        options = dict(images='photos')
    if kind == 'exclude':
        Path('aside.txt').write_text('sub/9.png\nsub/8.png\n')
        options['exclude'] = 'aside.txt'
    if kind == 'skip_bad': options['skip_bad'] = True
    ask(review='review.csv', **options)
    found = pd.read_csv('review.csv')
    assert (found.given == pd.read_csv('labels.csv', index_col='image').label[found.image].values).all()
    wrong = {*slips.index[:6]} & {*found.image[:10]}
    assert len(wrong) >= 3
    some = found[::2].assign(label=found.given)
    some.to_csv('some.csv', index=False)
    ask(reviewed='some.csv', review='more.csv', **options)
    assert pd.read_csv('more.csv').image.tolist() == found.image[1::2].tolist()

def test_the_labeller_goes_through_the_file(slips):
    from PIL import Image
    from m2vaal_nb.own_images.labeller import LabelQueue
    for name in slips.index:
        Path('photos', name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (8, 8)).save(f'photos/{name}')
    ask(images='photos', review='review.csv')
    found = pd.read_csv('review.csv')
    queue = LabelQueue('photos', 'review.csv', ['cat', 'dog', 'hen'], todo='review.csv')
    assert queue.queue == found.image.tolist()
    for image in found.image[:5]: queue.label(slips[image])
    filled = pd.read_csv('review.csv')
    assert filled.drop(columns='label').equals(found.drop(columns='label')) and filled.label.notna().sum() == 5
    assert 'Labels looked at again: 5,' in ask(images='photos', reviewed='review.csv')

@pytest.mark.parametrize('name, says', [
    ('x', "label 'x': the classes are cat, dog, hen. A class that only"), ('Cat', "label 'Cat'.*Did you mean cat.*--classes"), ('hens', 'Did you mean hen'), ('?', 'Leave the cell empty')])
def test_a_mark_is_no_class(slips, name, says):
    "What is no class among the other labels is refused, unless it is named."
    ask(review='review.csv')
    found = pd.read_csv('review.csv', dtype=dict(label=object))
    found.loc[:2, 'label'] = name
    found.to_csv('marked.csv', index=False)
    with pytest.raises(ValueError, match=says): ask(reviewed='marked.csv')
    assert f'{name} 3' in ask(reviewed='marked.csv', classes=['cat', 'dog', 'hen', name])
    with pytest.raises(ValueError) as e: ask(reviewed='marked.csv', classes=['cat', 'dog', 'hen'])
    assert 'to be named' not in str(e.value)

def test_what_is_changed_in_another_column_is_told(slips):
    ask(review='review.csv')
    found = pd.read_csv('review.csv', dtype=dict(label=object))
    found.loc[:1, 'given'] = found.predicted[:2]
    found.loc[2, 'label'] = found.given[2]
    found.to_csv('changed.csv', index=False)
    said = ask(reviewed='changed.csv')
    assert 'changed.csv, rows of another given label than there was, and no label: 2; only the column label is read.' in said
    assert 'Labels looked at again: 1, of which 0 changed.' in said

def test_a_file_that_is_named_twice_is_of_second_looks(slips):
    ask(review='review.csv')
    found = pd.read_csv('review.csv')
    found.assign(label=[*slips[found.image]]).to_csv('again.csv', index=False)
    said = []
    query_folder(labels=['labels.csv', './again.csv', Path('again.csv').resolve()], reviewed=Path('again.csv'), embeddings='h.npz', say=said.append)
    assert f'Labels looked at again: {len(found)},' in ' '.join(said)

def test_what_a_spreadsheet_makes_of_given_is_no_change(slips):
    "Classes 1 and true come back as 1.0 and TRUE; the rows that nobody filled in say nothing."
    table = pd.read_csv('labels.csv')
    table.label = table.label.map(dict(cat='1', dog='2', hen='true'))
    table.to_csv('labels.csv', index=False)
    ask(review='review.csv')
    found = pd.read_csv('review.csv', dtype=str, keep_default_na=False)
    found.given = found.given.map({'1': '1.0', '2': '2.0', 'true': 'TRUE'})
    found.loc[0, 'label'] = '1.0'
    found.to_csv('again.csv', index=False)
    said = ask(reviewed='again.csv')
    assert 'of another given label' not in said and 'Labels looked at again: 1,' in said

def test_a_review_of_images_that_are_gone(slips):
    ask(review='review.csv')
    found = pd.read_csv('review.csv', dtype=dict(label=object))
    found.loc[0, 'label'] = found.given[0]
    found.loc[1:, 'image'] = 'gone' + found.index[1:].astype(str) + '.png'
    found.to_csv('again.csv', index=False)
    said = ask(reviewed='again.csv')
    assert 'Labels looked at again: 1,' in said and 'in rows without a label' in said

@pytest.mark.parametrize('part', [0, .05])
def test_what_would_be_below_by_chance_is_about_what_is(part):
    """Where it is far from nothing: 1,000 labels of ten classes that overlap, over five worlds.
    Where labels are wrong, heads learn that everything is possible: then it may be too high, but the wrong ones still stand out."""
    right, chance, below = [], [], []
    for seed in range(5):
        g = np.random.default_rng(seed)
        y = g.integers(10, size=1000)
        h = np.eye(10, 12)[y] + .3*g.normal(size=(1000, 12))
        wrong = np.arange(1000) < 1000*part
        given = np.where(wrong, (y + g.integers(1, 10, 1000)) % 10, y)
        pool = known_pool((h/np.linalg.norm(h, axis=1, keepdims=True)).astype('f4'), given, [*'abcdefghij'])
        r = label_review(pool, P, seed)
        right.append(r.below - wrong[r.suspects.id].sum()), chance.append(r.by_chance), below.append(r.below)
    assert np.mean(chance) > 5 and np.mean(right) < 1.6*np.mean(chance)
    if part: assert np.mean(below) > 1.5*np.mean(chance)
    else: assert np.mean(right) > .6*np.mean(chance)
