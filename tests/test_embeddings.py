"Embeddings in, and made: every form, everything that is wrong with a file, a kill in the middle, from nothing to a second query."
import csv, io, json, os, pickle, re, shutil, subprocess, sys, time
from pathlib import Path
from unittest.mock import patch
import numpy as np, pandas as pd, pytest, torch
from PIL import Image, ImageDraw
from torchvision.models import resnet18
from m2vaal_nb.cli import m2vaal_embed, m2vaal_query
from m2vaal_nb.foundations import display
from m2vaal_nb.own_images import embed, embeddings
from m2vaal_nb.own_images.accuracy import cross_validate
from m2vaal_nb.own_images.embed import backbone_for, embed_folder, load_weights, part_files, passes_for, recipe_for, settings_for
from m2vaal_nb.own_images.embeddings import HALVED, for_images, read_embeddings, unit_rows
from m2vaal_nb.own_images.folder import query_folder
from m2vaal_nb.own_images.query import known_pool, method_for, next_images

N, D = 40, 6
NAMES = [f'{"new/" if i % 3 == 0 else ""}{i:02} ä.jpg' for i in range(N)]
H = np.random.default_rng(0).standard_normal((N, D)).astype('f4') + 3*np.eye(D, dtype='f4')[np.arange(N) % 3]
UNIT = H/np.linalg.norm(H, axis=1, keepdims=True)

@pytest.fixture
def here(tmp_path, monkeypatch):
    "An empty working folder, and a cache of its own."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    return tmp_path

def shell(command, *args):
    with patch.object(sys, 'argv', [command.__name__, *map(str, args)]): command()

def refused(capsys, command, *args):
    "The one sentence that a command ends with."
    with pytest.raises(SystemExit) as e: shell(command, *args)
    out, err = capsys.readouterr()
    assert e.value.code == 1 and err.count('\n') == 1 and err.rstrip()[-1] in '.?', err
    return err

def labels(file='labels.csv', n=9, names=NAMES):
    Path(file).write_text('image,label\n' + ''.join(f'{name},{"abc"[i % 3]}\n' for i,name in enumerate(names[:n])), encoding='utf-8')
    return file

# --- forms ---
def frame(name='filename', column='embedding_{}'): return pd.DataFrame({name: NAMES, **{column.format(i): H[:,i] for i in range(D)}})
FORMS = { # file: who writes it
    'z.npz': lambda f: np.savez(f, embeddings=H, names=NAMES),
    'zip.npz': lambda f: np.savez_compressed(f, features=H.astype('f8'), filenames=np.array([n.encode() for n in NAMES])),
    'half.npz': lambda f: np.savez(f, embeddings=H.astype('f2'), names=NAMES),
    'big.npz': lambda f: np.savez(f, embeddings=H.astype('>f4'), image_path=NAMES),
    'z.npy': lambda f: (np.save(f, H), f.with_suffix('.txt').write_text('\r\n'.join(NAMES), encoding='utf-8-sig')),
    'half.npy': lambda f: (np.save(f, H.astype('f2')), f.with_suffix('.txt').write_text('\n'.join(NAMES) + '\n', encoding='utf-8')),
    'lightly.pt': lambda f: torch.save(dict(filenames=NAMES, embeddings=torch.tensor(H)), f),
    'bf16.pth': lambda f: torch.save(dict(names=NAMES, embeddings=torch.tensor(H).bfloat16()), f),
    'lightly.csv': lambda f: frame().to_csv(f, index=False),
    'lightly_worker.csv': lambda f: frame('filenames').assign(labels=0).to_csv(f, index=False),
    'plain.csv': lambda f: frame('image', '{}').to_csv(f),
    'wide.parquet': lambda f: frame('name').to_parquet(f),
    'cells.parquet': lambda f: pd.DataFrame(dict(image_path=NAMES, embedding=[*H])).to_parquet(f)}

@pytest.mark.parametrize('file', FORMS)
def test_forms(here, file):
    if file.endswith('.parquet'): pytest.importorskip('pyarrow')
    FORMS[file](here/file)
    z = read_embeddings(here/file)
    assert z.names == NAMES and z.h_N_D.dtype == torch.float
    assert np.allclose(z.h_N_D, UNIT, atol=2e-2 if file == 'bf16.pth' else 1e-3)

@pytest.mark.parametrize('file', FORMS)
def test_forms_beside_a_folder(here, file):
    "A query, and a labeller that chooses by itself, as without one."
    from m2vaal_nb.own_images.labeller import chosen_now
    if file.endswith('.parquet'): pytest.importorskip('pyarrow')
    FORMS[file](here/file)
    for name in NAMES: picture(f'photos/{name}')
    alone = query_folder(None, labels(), 6, embeddings=file, say=str)
    shell(m2vaal_query, 'photos', '--embeddings', file, '--labels', 'labels.csv', '--budget', 6, '--out', 'beside.csv')
    assert set(pd.read_csv('beside.csv').image) == set(alone.image)
    assert set(chosen_now('photos', 'labels.csv', [*'abc'], file, 6)) == set(alone.image)

def test_of_files_that_are_not_ours_nothing_is_read(here, monkeypatch):
    "They are large."
    for write in ('z.npy', 'lightly.pt', 'lightly.csv'): FORMS[write](here/write)
    np.savez('no_dict.npz', made='[1]')
    (here/'text.npz').write_text('no archive')
    assert [embeddings.made_by(here/f) for f in ('no_dict.npz', 'text.npz', 'none.npz')] == [None]*3
    monkeypatch.setattr(np, 'load', None)
    assert [embeddings.made_by(here/f) for f in ('z.npy', 'lightly.pt', 'lightly.csv')] == [None]*3

def test_a_file_is_left_as_it_was(here):
    FORMS['z.npy'](here/'z.npy')
    before = (here/'z.npy').read_bytes()
    read_embeddings('z.npy')
    assert (here/'z.npy').read_bytes() == before

@pytest.mark.parametrize('halved, dtype', [(N*D - 1, torch.half), (N*D, torch.float), (N*D + 1, torch.float)])
def test_large_pools_are_kept_in_half_precision(here, halved, dtype):
    "And choose as others do."
    FORMS['z.npz'](here/'z.npz')
    labels()
    with patch.object(embeddings, 'HALVED', halved):
        assert read_embeddings('z.npz').h_N_D.dtype == dtype
        found = query_folder(None, 'labels.csv', 5, embeddings='z.npz', say=str)
    assert len(found) == 5 and found.probability.between(1/3, 1).all() and HALVED > 1 << 20

# --- what is wrong with a file ---
def npz(**arrays): return lambda f: np.savez(f, **arrays)
def with_nan(rows):
    bad = H.copy()
    bad[rows] = np.nan
    return bad
class Evil:
    def __reduce__(self): return os.system, ('touch pwned',)
BAD = { # file: (who writes it, what is said)
    'empty.npz': (lambda f: f.touch(), 'is empty'),
    'none.npz': (lambda f: None, 'no file'),
    'z.xyz': (lambda f: f.write_text('x'), 'of no kind that is read: allowed are .npz'),
    'text.npz': (lambda f: f.write_text('no archive'), 'no whole archive of NumPy'),
    'text.npy': (lambda f: (f.write_text('no array'), f.with_suffix('.txt').write_text('a')), 'could not be read|never unpickled'),
    'text.pt': (lambda f: f.write_text('no tensor'), 'could not be read|never unpickled'),
    'text.csv': (lambda f: f.write_text('no table'), 'exactly one of names'),
    'nameless.npz': (npz(embeddings=H), 'exactly one of names'),
    'rowless.npz': (npz(names=NAMES), 'exactly one of embeddings'),
    'both.npz': (npz(names=NAMES, filenames=NAMES, embeddings=H), 'exactly one of names'),
    'twice.npz': (npz(names=[*NAMES[:-1], NAMES[0]], embeddings=H), r'more than one row for 1 images: new/00 ä.jpg'),
    'blank.npz': (npz(names=[*NAMES[:-1], ' '], embeddings=H), '1 rows without a name: rows 39'),
    'numbers.npz': (npz(names=np.arange(N), embeddings=H), '40 rows without a name'),
    'short.npz': (npz(names=NAMES[:-1], embeddings=H), '40 rows, but 39 names'),
    'nan.npz': (npz(names=NAMES, embeddings=with_nan([3, 7])), r'not finite, or all zeros: 2 or more, new/03 ä.jpg, 07 ä.jpg'),
    'inf.npz': (npz(names=NAMES, embeddings=H*np.float32(np.inf)), 'not finite'),
    'zeros.npz': (npz(names=NAMES, embeddings=0*H), 'all zeros: 40'),
    'flat.npz': (npz(names=NAMES, embeddings=H[:,0]), r'must have shape \(images, numbers\)'),
    'cube.npz': (npz(names=NAMES, embeddings=H[:,:,None]), r'must have shape'),
    'no_row.npz': (npz(names=np.array([], str), embeddings=H[:0]), 'at least 1 row'),
    'words.npz': (npz(names=NAMES, embeddings=H.astype(str)), 'must be numbers'),
    'complex.npz': (npz(names=NAMES, embeddings=H + 1j), 'must be numbers'),
    'objects.npz': (npz(names=np.array(NAMES, object), embeddings=H), 'never unpickled'),
    'pickle.npy': (lambda f: (np.save(f, np.array([Evil()], object), allow_pickle=True), f.with_suffix('.txt').write_text('a')), 'never unpickled'),
    'pickle.npz': (lambda f: f.write_bytes(pickle.dumps(Evil())), 'no whole archive of NumPy'),
    'pickle.pt': (lambda f: torch.save(dict(names=NAMES, embeddings=Evil()), f), 'never unpickled'),
    'tensor.pt': (lambda f: torch.save(torch.tensor(H), f), 'a dict of names and embeddings is needed'),
    'alone.npy': (lambda f: np.save(f, H), 'put them into alone.txt beside it'),
    'gap.csv': (lambda f: frame().where(lambda t: t != H[2, 1]).to_csv(f, index=False), 'not finite'),
    'word.csv': (lambda f: f.write_text('name,e0,e1\na.jpg,1,x\nb.jpg,1,2'), 'must be numbers')}

@pytest.mark.parametrize('file', BAD)
def test_bad_files(here, capsys, file):
    write, says = BAD[file]
    write(here/file)
    said = refused(capsys, m2vaal_query, '--embeddings', file)
    import re
    assert re.search(says, said), said
    assert not (here/'pwned').exists() and not (here/'next.csv').exists()

def test_cut_files(here, capsys):
    for file in 'z.npz', 'lightly.pt', 'z.npy':
        FORMS[file](here/file)
        raw = (here/file).read_bytes()
        (here/file).write_bytes(raw[:-300])
        assert 'could not be read' in refused(capsys, m2vaal_query, '--embeddings', file)

# --- embeddings and a folder ---
def picture(path, shade=0):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (9, 8), (80*shade, 40, 90)).save(path)

def test_a_folder_and_embeddings_that_do_not_fit(here, capsys):
    for name in NAMES: picture(f'photos/{name}')
    np.savez('z.npz', embeddings=H[2:], names=[*NAMES[2:-1], 'gone.jpg'])
    said = refused(capsys, m2vaal_query, 'photos', '--embeddings', 'z.npz')
    assert '3 of 40 images have no embedding in z.npz: 01 ä.jpg, new/00 ä.jpg, new/39 ä.jpg; embed' in said
    shell(m2vaal_query, 'photos', '--embeddings', 'z.npz', '--labels', labels(), '--skip-bad', '--budget', 99)
    out = capsys.readouterr().out
    assert out.startswith('37 images, 7 of them labelled; embeddings of 6 numbers each, from z.npz.')
    assert 'left out.' in out and '1 embeddings are of no image of the folder: gone.jpg.' in out
    assert set(pd.read_csv('next.csv').image) == {*NAMES[9:-1]}
    np.savez('y.npz', embeddings=H, names=[f'x{n}' for n in NAMES])
    assert 'The folder has no image' in refused(capsys, m2vaal_query, 'photos', '--embeddings', 'y.npz')

def test_names_in_another_order_with_a_prefix(here):
    "A folder's choice does not depend on how its embeddings are stored."
    for name in NAMES: picture(f'photos/{name}')
    order = np.random.default_rng(1).permutation(N)
    np.savez('a.npz', embeddings=H[np.argsort(NAMES)], names=sorted(NAMES))
    np.savez('b.npz', embeddings=H[order], names=[f'/mnt/photos/{NAMES[i]}' for i in order])
    first, second = (query_folder('photos', labels(), 6, embeddings=f, say=str) for f in ('a.npz', 'b.npz'))
    alone = query_folder(None, labels(), 6, embeddings='a.npz', say=str)
    assert first.equals(second) and first.equals(alone)

# --- methods ---
@pytest.mark.parametrize('method, given, says', [
    ('vaal', 'z.npz', 'vaal reads images, not features: choose one of linear_random, '),
    ('linear_margin', None, 'linear_margin reads features, not images: choose one of random, '),
    ('nonsense', 'z.npz', 'Unknown method')])
def test_a_method_that_reads_the_other(here, capsys, method, given, says):
    FORMS['z.npz'](here/'z.npz')
    picture('photos/a.png')
    args = ['--embeddings', given] if given else ['photos']
    assert says in refused(capsys, m2vaal_query, *args, '--method', method)

@pytest.mark.parametrize('option', ['--size', '--steps'])
def test_what_is_for_images_alone(here, capsys, option):
    FORMS['z.npz'](here/'z.npz')
    assert 'is for images alone' in refused(capsys, m2vaal_query, '--embeddings', 'z.npz', option, 32)

def test_nothing_given(here, capsys):
    assert 'Nothing to choose from' in refused(capsys, m2vaal_query)

@pytest.mark.parametrize('method', ['linear_random', 'linear_margin', 'linear_badge', 'linear_typiclust', 'linear_uherding', 'm1m2_doubt_area', 'm1m2_graph_margin', 'propagation_margin', None])
def test_methods_on_features(method):
    y = np.where(np.arange(N) < 12, np.arange(N) % 3, -1)
    pool = known_pool(UNIT, y, 'abc')
    found = next_images(pool, 5, method)
    assert len(found) == 5 and (found.id >= 12).all()
    assert cross_validate(pool, method).label.tolist() == ['abc'[c] for c in y[:12]]

@pytest.mark.parametrize('method', ['m1m2_doubt_area', 'm1m2_margin', 'm1m2_graph_doubt_area', 'm1m2_graph_uherding', 'propagation_margin', 'propagation_doubt_area'])
def test_what_needs_a_label_chooses_before_the_first_one_too(here, method):
    "With no label, one, and some of one class."
    FORMS['z.npz'](here/'z.npz')
    query = m2vaal_query, '--embeddings', 'z.npz', '--classes', 'a,b,c', '--budget', 5, '--audit', .2
    for known in [], NAMES[:1], NAMES[:12:3]:
        write_labels(dict.fromkeys(known, 'a'), 'labels.csv')
        for options in [], ['--method', method]:
            shell(*query, '--labels', 'labels.csv', '--out', f'{len(options)}.csv', '--report', f'{len(options)}.html', *options)
        found = pd.read_csv('2.csv')
        assert len({*found.image} - {*known}) == 5 and {*found.predicted.dropna()} <= ({'a'} if known else set())
        if not known and method.endswith('doubt_area'): assert found.image.tolist() == pd.read_csv('0.csv').image.tolist()

def test_one_label_none_and_all(here, capsys):
    FORMS['z.npz'](here/'z.npz')
    for n in 0, 1, 39, 40:
        classes = ['--classes', 'a,b,c']
        shell(m2vaal_query, '--embeddings', 'z.npz', '--labels', labels(n=n), '--out', f'{n}.csv', *classes)
        assert os.path.exists(f'{n}.csv') == (n < N)
        if n < N: assert len(pd.read_csv(f'{n}.csv')) == min(20, N - n)
    assert 'All images are labelled' in capsys.readouterr().out

# --- made ---
SHAPES = 'disc', 'bar', 'box'
def scene(kind, g):
    "One shape on a ground of two colours, of any size."
    w, h = (int(v) for v in g.integers(40, 120, 2))
    im = Image.fromarray(g.integers(60, 200, (2, 2, 3), dtype=np.uint8)).resize((w, h), Image.Resampling.BICUBIC)
    s, colour = min(w, h)//3, tuple(int(v) for v in g.integers(0, 256, 3))
    x, y = w//2, h//2
    draw = ImageDraw.Draw(im)
    if kind == 'disc': draw.ellipse([x-s, y-s, x+s, y+s], fill=colour)
    else: draw.rectangle([x-s, y-(s if kind == 'box' else s//4), x+s, y+(s if kind == 'box' else s//4)], fill=colour)
    return im

def scenes(folder, n):
    g, truth = np.random.default_rng(0), {}
    Path(folder, 'new').mkdir(parents=True)
    for i in range(n):
        name = f'{"new/" if i % 4 == 0 else ""}{i:03}.jpg'
        truth[name] = SHAPES[i % 3]
        scene(truth[name], g).save(Path(folder, name), quality=85)
    return truth

def write_labels(found, file): Path(file).write_text('image,label\n' + ''.join(f'{k},{v}\n' for k,v in found.items()))

def test_from_nothing(here, capsys):
    "Embed, query, label, query again, each query in less than five seconds of computing."
    truth = scenes('photos', 120)
    write_labels(dict(list(truth.items())[:40]), 'labels.csv')
    shell(m2vaal_embed, 'photos', '--out', 'z.npz', '--passes', 3)
    query = m2vaal_query, 'photos', '--embeddings', 'z.npz', '--budget', 10
    shell(*query, '--labels', 'labels.csv')
    chosen = pd.read_csv('next.csv')
    assert not set(chosen.image) & set(list(truth)[:40])
    chosen.assign(label=chosen.image.map(truth)).to_csv('next.csv', index=False)
    capsys.readouterr()
    started = time.process_time()
    shell(*query, '--labels', 'labels.csv,next.csv', '--out', 'then.csv')
    assert time.process_time() - started < 5
    out = capsys.readouterr().out
    assert '120 images, 50 of them labelled; embeddings of 128 numbers each, from z.npz' in out and 'on the 50 labels at hand' in out
    assert not set(pd.read_csv('then.csv').image) & set(chosen.image)

def untrained(folder='photos', out='z.npz', name='resnet18', **kw):
    torch.manual_seed(0)
    return embed_folder(folder, out, name, pretrained=False, device='cpu', say=str, **kw)

@pytest.mark.parametrize('batch,together', [(4, 4), (9, 1), (9, 4), (9, 9), (9, 10)])
def test_a_backbone_sees_what_a_query_sees(here, monkeypatch, batch, together):
    "However many images it reads, and sees, at a time."
    truth = scenes('photos', 9)
    monkeypatch.setattr(embed, 'PER_THREAD', together)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)
    untrained(batch=batch)
    z, whole = read_embeddings('z.npz'), backbone_for('resnet18', pretrained=False)
    assert z.names == sorted(truth) and z.h_N_D.shape == (9, 512)
    assert not [f for f in os.listdir() if 'part' in f]
    torch.manual_seed(0)
    whole = backbone_for('resnet18', pretrained=False)
    x = torch.stack([whole.look(Image.open(f'photos/{name}').convert('RGB')) for name in z.names])
    expected = torch.nn.functional.normalize(whole.net(x))
    assert torch.allclose(z.h_N_D, expected, atol=1e-4)

@pytest.mark.parametrize('die_in', [1, 2, 3])
def test_killed_in_a_batch(here, die_in):
    scenes('photos', 9)
    once, calls = embed.rows_of, []
    def dying(*args):
        calls.append(1)
        if len(calls) == die_in + 1: raise KeyboardInterrupt      # the first look tells the width
        return once(*args)
    with patch.object(embed, 'rows_of', dying), pytest.raises(KeyboardInterrupt): untrained(batch=4)
    assert not os.path.exists('z.npz')
    _, notes = part_files(Path('z.npz'))
    assert (json.loads(notes.read_text())['done'] if notes.exists() else 0) == 4*(die_in - 1)
    calls.clear()
    def counting(*args):
        calls.append(1)
        return once(*args)
    with patch.object(embed, 'rows_of', counting): untrained(batch=4)
    assert len(calls) == 1 + 4 - die_in
    untrained(out='whole.npz', batch=4)
    assert torch.allclose(read_embeddings('z.npz').h_N_D, read_embeddings('whole.npz').h_N_D, atol=1e-6)

def test_bad_files_stop_nothing_and_are_listed(here, capsys):
    truth = scenes('photos', 8)
    Path('photos/page.jpg').write_text('<html>')
    Path('photos/new/empty.png').touch()
    with pytest.raises(ValueError, match='2 of 10 images could not be read: new/empty.png .empty., page.jpg .HTML or XML.; remove them'): untrained(batch=3)
    with patch.object(embed, 'read_batch', side_effect=AssertionError('read again')): untrained(batch=3, skip_bad=True)
    assert read_embeddings('z.npz').names == sorted(truth)
    said = []
    embed_folder('photos', 'l.npz', passes=1, skip_bad=True, say=said.append)
    assert '2 of 10 images could not be read and are left out' in said[-2]
    query_folder('photos', [], 3, embeddings='z.npz', skip_bad=True, say=said.append)
    with pytest.raises(ValueError, match='2 of 10 images have no embedding'): query_folder('photos', [], 3, embeddings='z.npz')
    for name in truth: os.remove(f'photos/{name}')
    with pytest.raises(ValueError, match='z.npz would be lost: it holds no image of this folder'): untrained(batch=3, skip_bad=True)
    os.remove('z.npz')
    with pytest.raises(ValueError, match='none is left'): untrained(batch=3, skip_bad=True)

def test_up_to_date_until_an_image_changes(here):
    truth, said = scenes('photos', 6), []
    args = dict(passes=1, size=8, say=said.append)
    embed_folder('photos', 'z.npz', **args)
    embed_folder('photos', 'z.npz', **args)
    assert said[-1] == 'z.npz is up to date: 6 images by learned.'
    Image.new('RGB', (20, 20)).save(f'photos/{[*truth][0]}')
    embed_folder('photos', 'z.npz', **args)
    assert 'up to date' not in said[-1]
    Path('mine.npz').write_bytes(b'mine')
    with pytest.raises(ValueError, match='would be lost'): embed_folder('photos', 'mine.npz', **args)
    assert Path('mine.npz').read_bytes() == b'mine'

@pytest.mark.parametrize('size, n', [(8, 2), (9, 3), (33, 5)])
def test_learned_in_colour_at_any_size(here, size, n):
    scenes('photos', n)
    embed_folder('photos', 'z.npz', passes=1, size=size, say=str)
    z = read_embeddings('z.npz')
    assert z.h_N_D.shape == (n, 128)

@pytest.mark.parametrize('n, says', [(0, 'no image'), (1, 'must have at least 2 rows, not 1')])
def test_a_folder_with_too_few_images_to_learn_from(here, n, says):
    Path('photos').mkdir()
    if n: scenes('photos', n)
    with pytest.raises(ValueError, match=says) as e: embed_folder('photos', 'z.npz', passes=1, size=8, say=str)
    assert '\n' not in str(e.value) and not os.path.exists('z.npz')

@pytest.mark.parametrize('kw, says', [
    (dict(size=7), '`size` is 7'), (dict(passes=0), '`passes` is 0'), (dict(batch=0), '`batch` is 0'), (dict(weights='w.pt'), 'needs no weights'),
    (dict(backbone='resnet18', size=64), 'for `learned` alone'), (dict(out='z.csv'), 'written as .npz'), (dict(images='nowhere'), 'no folder'),
    (dict(backbone='squeezenet1_0', pretrained=False), 'no linear layer'), (dict(backbone='resnet18', weights='none.pt'), 'no file none.pt'),
    (dict(backbone='resnet18', device='tpu'), 'device')])
def test_bad_requests(here, kw, says):
    scenes('photos', 3)
    with pytest.raises(ValueError, match=says): embed_folder(**dict(dict(images='photos', out='z.npz', say=str), **kw))
    assert not os.path.exists('z.npz')

def test_weights_that_cannot_be_fetched(here, capsys):
    scenes('photos', 3)
    with patch('torchvision.models._api.WeightsEnum.get_state_dict', side_effect=OSError('no network')):
        assert 'could not be fetched (no network): give a file' in refused(capsys, m2vaal_embed, 'photos', '--backbone', 'resnet18')

def test_weights_from_a_file(here):
    scenes('photos', 3)
    torch.manual_seed(7)
    other = backbone_for('mobilenet_v3_small', pretrained=False)
    torch.save(dict(model={f'module.{k}': v for k,v in other.net.state_dict().items()}), 'w.pt')
    got = backbone_for('mobilenet_v3_small', 'w.pt')
    assert all(torch.equal(a, b) for a,b in zip(got.net.state_dict().values(), other.net.state_dict().values()))
    with pytest.raises(ValueError, match='of another|another net'): backbone_for('resnet18', 'w.pt')
    torch.save(Evil(), 'evil.pt')
    with pytest.raises(ValueError, match='could not be read as weights'): backbone_for('resnet18', 'evil.pt')
    with patch.object(torch, 'load', side_effect=MemoryError), pytest.raises(MemoryError): backbone_for('resnet18', 'evil.pt')
    assert not os.path.exists('pwned')

def test_timm(here):
    timm = pytest.importorskip('timm')
    scenes('photos', 3)
    made = backbone_for('timm/vit_tiny_patch16_224', pretrained=False)
    with_head = timm.create_model('vit_tiny_patch16_224', pretrained=False)
    torch.save(with_head.state_dict(), 'vit.pt')
    got = backbone_for('vit_tiny_patch16_224', 'vit.pt')
    x = got.look(Image.new('RGB', (300, 200), (9, 200, 30)))[None]
    assert x.shape == (1, 3, 224, 224) and got.side == made.side == 249
    assert torch.allclose(got.net(x), with_head.eval().forward_head(with_head.forward_features(x), pre_logits=True), atol=1e-5)
    embed_folder('photos', 'z.npz', 'vit_tiny_patch16_224', 'vit.pt', device='cpu', say=str)
    assert read_embeddings('z.npz').h_N_D.shape == (3, 192)
    with pytest.raises(ValueError, match='Neither torchvision nor timm has vit_tinny'): backbone_for('vit_tinny_patch16_224', pretrained=False)

def test_timm_without_a_network(here):
    "Its hub tries again and again; what is said is one sentence."
    pytest.importorskip('timm')
    scenes('photos', 2)
    code = "import sys, time; time.sleep = lambda s: None; from m2vaal_nb.cli import m2vaal_embed; sys.argv[0] = 'm2vaal_embed'; m2vaal_embed()"
    env = os.environ | dict(HF_ENDPOINT='http://127.0.0.1:9', HF_HOME=str(here/'hub'))
    done = subprocess.run([sys.executable, '-c', code, 'photos', '--backbone', 'timm/resnet18'], env=env, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr
    assert re.fullmatch(r'm2vaal_embed: The weights of resnet18 could not be fetched \(.*\w\): give a file of them .*\n', done.stderr), done.stderr

def test_how_far_it_is_without_a_bar(here, monkeypatch, capsys):
    "Lines as often as is asked for; what is said aloud is said once."
    scenes('photos', 9)
    monkeypatch.setenv('TQDM_DISABLE', '')
    monkeypatch.setattr(display, 'EVERY', 0.)
    def told(out, *args, **kw):
        said = []
        embed_folder('photos', out, *args, device='cpu', say=said.append, **kw)
        return said, capsys.readouterr().err.splitlines()
    (first, colours, where, first_pass, last), lines = told('a.npz', passes=4, size=8)
    assert '--no-recolour' in colours and where.startswith(f"After each pass, what was learned is kept in {here/'cache'}")
    assert re.fullmatch(r'Pass 1 of 4: loss .*, about .* left\.', first_pass)
    assert {'reading images', 'learning features', 'features'} <= {line.partition(':')[0] for line in lines}
    assert any(re.fullmatch(r'learning features: 4 of 4, about .* left', line) for line in lines)
    said, lines = told('b.npz', 'resnet18', batch=4, pretrained=False)
    assert 'embedding: 4 of 9' in [line.partition(',')[0] for line in lines]

WAYS = {'off': ('1', False, True, {'disable': True}), 'off, in a notebook': ('1', True, False, {'disable': True}),
        'a terminal': ('0', False, True, {'disable': False}), 'a notebook': ('', True, False, {'disable': False})}

@pytest.mark.parametrize('what', WAYS)
def test_where_there_is_a_bar(what, monkeypatch):
    off, notebook, terminal, way = WAYS[what]
    monkeypatch.setenv('TQDM_DISABLE', off)
    monkeypatch.setattr('fastcore.imports.in_notebook', lambda: notebook)
    with patch.object(sys, 'stderr') as err:
        err.isatty = lambda: terminal
        assert display.way_to_show() == way
        err.isatty = lambda: False
        if not notebook and off == '0': assert isinstance(display.way_to_show()['file'], display.Lines)

@pytest.mark.parametrize('wrong', [BrokenPipeError, OSError(28, 'No space left on device'), ValueError('I/O operation on closed file')])
def test_lines_that_nobody_reads_any_more(wrong, monkeypatch):
    "A pipe that was closed, or a log whose disk is full, stops no work."
    monkeypatch.setenv('TQDM_DISABLE', '')
    monkeypatch.setattr(display, 'EVERY', 0.)
    class Closed(io.StringIO):
        def write(self, text): raise wrong
    monkeypatch.setattr(sys, 'stderr', Closed())
    assert list(display.progress('abc', 'letters')) == ['a', 'b', 'c']
    monkeypatch.setattr(sys, 'stderr', None)
    assert list(display.progress('abc', 'letters')) == ['a', 'b', 'c']

def test_lines_of_a_job_within_a_job_and_of_one_that_goes_on(monkeypatch, capsys):
    "No code for a terminal among them; what was done before is not taken for speed."
    monkeypatch.setenv('TQDM_DISABLE', '')
    monkeypatch.setattr(display, 'EVERY', 0.)
    for _ in display.progress('ab', 'outer'): list(display.progress('cd', 'inner'))
    lines = capsys.readouterr().err.splitlines()
    assert all(re.fullmatch(r'(outer|inner): \d of 2, about \S+ left', line) for line in lines) and len({*lines}) > 3
    with display.progress(None, 'steps', 1000, 900) as bar:
        time.sleep(.05)
        bar.update()
    said = [line for line in capsys.readouterr().err.splitlines() if '901 of 1000' in line]
    minutes, seconds = map(int, re.search(r'about (\d+):(\d+) left', said[-1]).groups())
    assert 60*minutes + seconds >= 4                # ninety-nine more, of fifty milliseconds each

def test_no_lock_is_left(here, capsys):
    "Whether a command ends well or not."
    scenes('photos', 6)
    shell(m2vaal_embed, 'photos', '--out', 'z.npz', '--passes', 1)
    with patch.object(embed, 'backbone_for', side_effect=ValueError('this went wrong.')):
        assert 'went wrong' in refused(capsys, m2vaal_embed, 'photos', '--out', 'y.npz', '--backbone', 'resnet18')
    shell(m2vaal_query, 'photos', '--embeddings', 'z.npz', '--budget', 2)
    assert sorted(os.listdir()) == ['cache', 'next.csv', 'photos', 'z.npz'] and not [f for f in Path('photos').rglob('.*')]

def test_without_a_folder_none_is_spoken_of(here, capsys):
    FORMS['z.npz'](here/'z.npz')
    Path('l.csv').write_text(f'image,label\n{NAMES[1]},a\nx.png,b')
    said = refused(capsys, m2vaal_query, '--embeddings', 'z.npz', '--labels', 'l.csv')
    assert 'l.csv: No folder is named, and z.npz has no image x.png: its 40 images have other names' in said
    Path('l.csv').write_text(f'image,label\n{NAMES[1]},a\n{NAMES[2]},b\nx.png,')
    shell(m2vaal_query, '--embeddings', 'z.npz', '--labels', 'l.csv', '--budget', 2)
    out = capsys.readouterr().out
    assert 'in rows without a label: No folder is named, and z.npz has no image x.png' in out and 'The folder' not in out
    assert 'There is no folder nowhere.' in refused(capsys, m2vaal_query, 'nowhere', '--embeddings', 'z.npz', '--labels', 'l.csv')

def test_only_new_images_are_looked_at(here, monkeypatch):
    "Images that came or were written again; rows of those that are gone are gone; another net begins anew."
    scenes('photos', 6)
    torch.save(resnet18().state_dict(), 'w.pt')
    seen, look = [], embed.read_picture
    monkeypatch.setattr(embed, 'read_picture', lambda path, *rest: seen.append(Path(path).relative_to('photos').as_posix()) or look(path, *rest))
    def again(weights='w.pt'):
        seen.clear()
        embed_folder('photos', 'z.npz', 'resnet18', weights, device='cpu', say=str)
        return read_embeddings('z.npz')
    whole = again()
    names = whole.names
    assert seen == names and again().names == names and not seen
    shutil.copy(f'photos/{names[0]}', 'photos/zz.png')
    Path('photos', names[1]).unlink()
    os.utime(f'photos/{names[2]}', ns=(1, 1))
    z = again()
    assert sorted(seen) == [names[2], 'zz.png'] and z.names == [names[0], *names[2:], 'zz.png']
    assert torch.allclose(z.h_N_D[0], z.h_N_D[-1], atol=1e-5) and torch.equal(z.h_N_D[2:5], whole.h_N_D[3:6])
    Path('photos/zz.png').unlink()
    assert again().names == z.names[:-1] and not seen
    torch.save(resnet18().state_dict(), 'v.pt')
    again('v.pt')
    assert len(seen) == 5

def test_passes():
    assert [passes_for(n) for n in (1, 599, 600, 10_000, 10_001, 10**6)] == [200, 200, 200, 12, 12, 12]
    assert settings_for('learned', 600, None, 5, 3, None)['recipe']['passes'] == 5

def test_numbered_columns_of_one_name_are_embeddings(tmp_path):
    "Other numbers in a table are not, wherever they stand; neither where a column has whole rows in its cells."
    table = pd.DataFrame(H).add_prefix('embedding_').assign(filename=NAMES, fold1=3., cluster_7=4., x1=5., x3=6.)
    one_based = pd.DataFrame(H, columns=[f'f{i+1}' for i in range(D)]).assign(name=NAMES)
    cells_too = pd.DataFrame(dict(name=NAMES, embedding=[*H], split1=1.))
    for frame in (table, table[table.columns[::-1]], one_based, cells_too):
        names, rows = embeddings.frame_table(frame, 'z')
        assert list(names) == NAMES and np.array_equal(np.array(list(rows)), H)
    with pytest.raises(ValueError, match='exactly one of embeddings'): embeddings.frame_table(pd.DataFrame(dict(name=NAMES, fold2=1.)), 'z')

@pytest.mark.parametrize('prefix', ['', '/data/photos/', 'photos/', 's3://bucket/photos/'])
def test_names_of_no_image_do_no_harm_with_any_prefix(prefix, tmp_path):
    z = embeddings.Embeddings(tmp_path/'z.npz', [prefix + name for name in NAMES], torch.from_numpy(H))
    found, notes = embeddings.for_images(z, NAMES[3:])
    assert found.names == NAMES[3:] and torch.equal(found.h_N_D, z.h_N_D[3:])
    assert len(notes) == 1 and notes[0].startswith('3 embeddings are of no image of the folder')
    one_is_bare = embeddings.Embeddings(z.path, [NAMES[0], *z.names[1:]], z.h_N_D)
    if prefix != 'photos/': assert embeddings.for_images(one_is_bare, NAMES)[0].names == NAMES
    else: # photos/a.jpg beside b.jpg may well be another image than a.jpg
        with pytest.raises(ValueError, match='did you mean'): embeddings.for_images(one_is_bare, NAMES)

def test_the_labeller_shows_what_it_can(tmp_path):
    "Images of a kind that only some machines show, and such without an embedding, are not chosen."
    from m2vaal_nb.own_images.labeller import chosen_now
    for name in ('a.png', 'b.png', 'c.png', 'd.avif'): Image.new('L', (8, 8)).save(tmp_path/name, 'PNG')
    np.savez(tmp_path/'z.npz', embeddings=H[:3], names=['a.png', 'b.png', 'd.avif'])
    assert set(chosen_now(tmp_path, tmp_path/'l.csv', ['x', 'y'], tmp_path/'z.npz')) == {'a.png', 'b.png'}

def test_the_labeller_knows_what_was_drawn(tmp_path):
    "Images that were drawn come first; what cannot be shown is named where it measures, and chosen labels do not join them."
    from m2vaal_nb.own_images.labeller import Labeller, chosen_now
    names = [f'{i}.png' for i in range(12)] + ['z.avif']
    for name in names: Image.new('L', (8, 8)).save(tmp_path/name, 'PNG')
    h = np.random.default_rng(0).normal(size=(13, 4))
    np.savez(tmp_path/'z.npz', embeddings=h/np.linalg.norm(h, axis=1, keepdims=True), names=names)
    def chosen(text, **options):
        (tmp_path/'drawn.txt').write_text(text)
        return [*chosen_now(tmp_path, tmp_path/'l.csv', ['x', 'y'], tmp_path/'z.npz', 3, drawn=tmp_path/'drawn.txt', **options)]
    assert {*chosen('3.png\n7.png\n9.png')} == {'3.png', '7.png', '9.png'} and {'3.png', '7.png'} < {*chosen('3.png\n7.png')}
    with pytest.raises(ValueError, match='1 of 2 images cannot be shown here and would hold up an audit: z.avif'): chosen('3.png\nz.avif')
    with pytest.raises(ValueError, match='1 of 13 images'): chosen('3.png', audit=.5)
    (tmp_path/'l.csv').write_text('image,label\n3.png,x\n')
    with pytest.raises(ValueError, match='belongs in another file'):
        chosen_now(tmp_path, tmp_path/'l.csv', ['x', 'y'], tmp_path/'z.npz', drawn=[tmp_path/'drawn.txt', str(tmp_path/'.'/'l.csv')])
    with pytest.raises(ValueError, match='by embeddings is audited'): Labeller(tmp_path, tmp_path/'l.csv', ['x', 'y'], drawn=tmp_path/'drawn.txt')

@pytest.mark.parametrize('what', ['flip', 'recolour'])
def test_left_and_right_may_differ_and_colours_may_count(what):
    assert settings_for('learned', 9, None, None, 0, None)['recipe'][what]
    assert not settings_for('learned', 9, None, None, 0, None, **{what: False})['recipe'][what]
    with pytest.raises(ValueError, match=f'--no-{what}'): settings_for('resnet18', 9, None, None, 0, None, **{what: False})

@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_only_images_of_three_colours_have_others(channels):
    from m2vaal_nb.beyond.contrast import Recipe, augmented
    x = torch.rand(4, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    looks = [augmented(x, torch.Generator().manual_seed(1), True, recolour) for recolour in (False, True)]
    assert torch.equal(*looks) == (channels != 3)
    said, asked = [], dict(passes=3, recolour=True)
    assert recipe_for(x, asked, said.append) == Recipe(**dict(asked, recolour=channels == 3)) and len(said) == (channels == 3)

def test_colours_stay_where_they_count_and_some_looks_are_grey():
    "Which channel is the strongest in each pixel; and how many of a thousand looks have no colour."
    from m2vaal_nb.beyond.contrast import augmented
    g = torch.Generator().manual_seed(0)
    x = torch.tensor([.55, .35, .2])[None,:,None,None].expand(1000, 3, 8, 8)
    def chroma(look): return (look.amax(1) - look.amin(1)).flatten(1).amax(1)
    same, other = (augmented(x, g, True, recolour) for recolour in (False, True))
    inside = same.amin(1) > .01
    assert inside.any() and (same[:,0] > same[:,1])[inside].all() and (same[:,1] > same[:,2])[inside].all()
    assert .15 < (chroma(other) < 1e-3).float().mean() < .25

def test_earlier_recipes_keep_their_words():
    "What was learned before colours could change is still found."
    import json
    from m2vaal_nb.beyond.contrast import Recipe
    from m2vaal_nb.beyond.representation import Learned
    def words(**kw): return json.loads(Learned('x', Recipe(**kw)).words)['recipe']
    assert 'recolour' not in words() and words(recolour=True) == words() | dict(recolour=True)

def test_colours_turned_as_by_hand():
    "A rotation about the axis of greys, by Rodrigues' formula, of every pixel."
    from scipy.spatial.transform import Rotation
    from m2vaal_nb.beyond.contrast import turned
    g = torch.Generator().manual_seed(0)
    x, hue = torch.rand(5, 3, 4, 4, generator=g), torch.rand(5, generator=g) - .5
    for of,turn,found in zip(x, hue, turned(x, hue, torch.ones(5))):
        by_hand = Rotation.from_rotvec(2*np.pi*float(turn)*np.ones(3)/3**.5).apply(of.flatten(1).T.numpy())
        assert np.allclose(found.flatten(1).T, by_hand, atol=1e-5)

@pytest.mark.parametrize('skip', [False, True])
def test_embeddings_of_another_folder_are_not_taken_for_those_of_this(skip, tmp_path):
    z = embeddings.Embeddings(tmp_path/'z.npz', NAMES, torch.from_numpy(H))
    with pytest.raises(ValueError, match=f"21 of 40 images have no embedding in .*another folder's"):
        embeddings.for_images(z, [*NAMES[:19], *(f'other{i}.jpg' for i in range(21))], skip)
    with pytest.raises(ValueError, match='z.npz: The folder has no image'): embeddings.for_images(z, ['x.png', 'y.png'], skip)
    half = [*NAMES[:20], *(f'other{i}.jpg' for i in range(20))]
    assert not skip or len(embeddings.for_images(z, half, skip)[0]) == 20

def test_images_written_anew_are_told(tmp_path, monkeypatch):
    "When one is written again, comes, or goes; not when nothing changed, nor for embeddings that others made."
    monkeypatch.chdir(tmp_path)
    scenes('photos', 12)
    embed_folder('photos', 'z.npz', passes=1, size=8, say=str)
    def told(**kw):
        said = []
        query_folder('photos', [], 3, embeddings='z.npz', say=said.append, **kw)
        return 'written anew since z.npz was made' in '\n'.join(said)
    first, *_ = sorted(read_embeddings('z.npz').names)
    assert not told()
    os.utime(f'photos/{first}', (1, 1))
    assert told()
    os.remove(f'photos/{first}')
    assert told()
    with np.load('z.npz') as z: np.savez('z.npz', embeddings=z['embeddings'], names=z['names'])
    assert not told()
