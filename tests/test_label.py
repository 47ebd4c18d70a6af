"Labelling, whatever is clicked in whatever order: no row is lost, undo goes back to the byte, a crash costs nothing."
import csv, os
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from conftest import ROOT, sh
from m2vaal_nb.own_images.files import image_paths
from m2vaal_nb.own_images.labeller import LabelQueue, picture
from m2vaal_nb.own_images.labels import images_in
from m2vaal_nb.own_images.pixels import Scales, folder_scales

NAMES, CLASSES = [f'{o}.png' for o in ('a', 'b,c', 'd "e"', 'sub/f', 'ü', '#')], ['cat', 'a dog, or two', 'Käse']
def quoted(s): return '"' + s.replace('"', '""') + '"'
def line(name, label, style): return (quoted(name) if style or set(name) & set(',"') else name) + (',' if label or style != 1 else '') + (quoted(label) if ',' in label or style == 2 else label)

@pytest.fixture
def folder(tmp_path):
    (tmp_path/'images/sub').mkdir(parents=True)
    for o in NAMES: (tmp_path/'images'/o).touch()
    return tmp_path/'images'

rows = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(['', *CLASSES]), st.integers(0, 2)), unique_by=lambda o: o[0])
steps = st.lists(st.sampled_from([*CLASSES, 'skip', 'undo', 'again', 'aside']), max_size=25)

@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows, st.sampled_from(['\n', '\r\n']), st.booleans(), st.sampled_from(['', '\ufeff']), st.permutations(NAMES), steps)
@example([('a.png', '', 0)], '\n', False, '', ['ü.png', *(o for o in NAMES if o != 'ü.png')], ['cat', 'cat'])     # a row behind a last line that has no end
def test_any_order_of_steps(folder, rows, end, ended, bom, todo, steps):
    path, aside = folder.parent/'labels.csv', folder.parent/'labels.aside.txt'
    path.write_bytes((bom + end.join(['image,label', *(line(*o) for o in rows)]) + (end if ended else '')).encode())
    aside.unlink(missing_ok=True)
    def texts(): return path.read_bytes(), aside.read_bytes() if aside.exists() else b''
    known, gone = {name: label for name,label,_ in rows if label}, []
    queue, past = LabelQueue(folder, path, CLASSES, todo), []
    for step in steps:
        now = texts(), queue.current, dict(known), [*gone]
        if step == 'again': queue, past = LabelQueue(folder, path, CLASSES, todo), []       # the kernel was restarted
        elif step == 'undo':
            if not past:
                with pytest.raises(ValueError, match='nothing to undo'): queue.undo()
                continue
            queue.undo()
            *before, known, gone = past.pop()
            assert [texts(), queue.current] == before
        elif queue.current is None:
            with pytest.raises(ValueError, match='Nothing waits any more'): dict(skip=queue.skip, aside=queue.cannot_tell).get(step, lambda: queue.label(step))()
        else:
            if step == 'skip': queue.skip()
            elif step == 'aside': gone = [*gone, queue.current]; queue.cannot_tell()
            else: known[queue.current] = step; queue.label(step)
            past.append(now)
        with path.open(newline='', encoding='utf-8-sig') as f: found = [(r['image'], r['label'] or '') for r in csv.DictReader(f)]
        assert {o: label for o,label in found if label} == known and queue.progress == (len(known), len(NAMES) - len(gone))
        assert images_in(aside if aside.exists() else None, NAMES) == {*gone} and texts()[1].decode().splitlines() == gone
        assert [o for o,_ in found][:len(rows)] == [o for o,*_ in rows] and len(dict(found)) == len(found)
        lines = path.read_bytes().decode().split(end)
        assert all(line(*o) == kept for o,kept in zip(rows, lines[1:]) if o[1]), 'a row with a label is never rewritten'
        assert '' not in lines[:-1]
        assert sorted(queue.queue) == sorted(set(NAMES) - known.keys() - {*gone})

@pytest.mark.parametrize('was', [b'', b'a.png', b'a.png\n\n', '\ufeffa.png\r\nü.png'.encode(), 'a.png\nü.png\n'.encode('utf-16')])
def test_names_are_added_to_whatever_text_puts_images_aside(folder, was):
    aside = folder.parent/'not these.txt'
    aside.write_bytes(was)
    before = images_in(aside, NAMES)
    queue = LabelQueue(folder, folder.parent/'labels.csv', CLASSES, exclude=aside)
    assert not before & {*queue.queue}
    first = queue.current
    queue.cannot_tell()
    assert images_in(aside, NAMES) == {first, *before} and queue.progress == (0, len(NAMES) - len(before) - 1)
    queue.undo()
    assert aside.read_bytes() == was

@pytest.mark.parametrize('name, raw', [('aside.csv', b'image,why\na.png,blurred\n'), ('aside.txt', 'ü.png\n'.encode('cp1252'))])
def test_what_else_puts_images_aside_is_read_and_not_written(folder, name, raw):
    aside = folder.parent/name
    aside.write_bytes(raw)
    queue = LabelQueue(folder, folder.parent/'labels.csv', CLASSES, exclude=aside)
    before = [*queue.queue]
    assert len(before) == len(NAMES) - 1
    with pytest.raises(ValueError, match='names are added to a text in UTF-8, a name a line'): queue.cannot_tell()
    assert aside.read_bytes() == raw and queue.queue == before and queue.progress == (0, len(before))

@pytest.mark.parametrize('name', ['c\nd.png', 'e\x1f.png', ' f.png', 'g.png ', '\ufeffh.png'])
def test_a_name_that_no_text_holds_is_not_put_aside(folder, name):
    (folder/name).touch()
    if name not in image_paths(folder): return                     # no image for anybody
    queue = LabelQueue(folder, folder.parent/'labels.csv', CLASSES, [name])
    with pytest.raises(ValueError, match='cannot take'): queue.cannot_tell()
    assert not (folder.parent/'labels.aside.txt').exists() and queue.progress == (0, 1)

@pytest.mark.parametrize('place, says', [('no/aside.txt', 'There is no folder'), ('images', 'is a folder: name a file')])
def test_where_nothing_can_be_put_aside_is_said_at_once(folder, place, says):
    with pytest.raises(ValueError, match=says): LabelQueue(folder, folder.parent/'labels.csv', CLASSES, exclude=folder.parent/place)
    assert not (folder.parent/'labels.csv').exists()

def test_each_table_has_images_put_aside_of_its_own(folder):
    one, other = (LabelQueue(folder, folder.parent/f'{name}.csv', CLASSES) for name in ('one', 'other'))
    one.cannot_tell()
    other.cannot_tell()
    assert one.progress == other.progress == (0, len(NAMES) - 1) and one.aside.path != other.aside.path

def test_an_image_that_was_put_aside_may_be_gone(folder):
    labels = folder.parent/'labels.csv'
    LabelQueue(folder, labels, CLASSES, ['a.png']).cannot_tell()
    (folder/'a.png').unlink()
    assert LabelQueue(folder, labels, CLASSES).progress == (0, len(NAMES) - 1)

def test_two_who_put_images_aside(folder):
    labels = folder.parent/'labels.csv'
    one, other = LabelQueue(folder, labels, CLASSES), LabelQueue(folder, labels, CLASSES)
    one.cannot_tell()
    with pytest.raises(ValueError, match='another program changed labels.aside.txt'): other.cannot_tell()
    assert len(images_in(folder.parent/'labels.aside.txt', NAMES)) == 1
    assert other.progress == (0, len(NAMES))

@pytest.mark.parametrize('n,looked_at', [(0, 0), (1, 1), (99, 99), (100, 100), (101, 51), (200, 100), (201, 67)])
def test_black_and_white_of_a_folder_are_looked_for_in_a_hundred_files_at_most(tmp_path, n, looked_at):
    "The rule is a query's, which looks at all: up to a hundred files there is no difference."
    paths = [f'{i}.png' for i in range(n)]
    assert len(folder_scales(tmp_path, paths).files) == looked_at
    if n <= 100: assert folder_scales(tmp_path, paths).files == Scales([tmp_path/o for o in paths]).files

@pytest.mark.parametrize('call', ['fsync', 'replace'])
def test_a_crash_costs_nothing(folder, monkeypatch, call):
    path = folder.parent/'labels.csv'
    queue = LabelQueue(folder, path, CLASSES)
    queue.label('cat')
    before = path.read_bytes(), queue.current, queue.progress
    def full(*_): raise OSError('No space left on device')
    with monkeypatch.context() as m:
        m.setattr(os, call, full)
        for act in lambda: queue.label('Käse'), queue.undo:
            with pytest.raises(OSError, match='No space'): act()
            assert (path.read_bytes(), queue.current, queue.progress) == before
    assert sorted(o.name for o in folder.parent.iterdir()) == ['images', 'labels.csv']
    queue.label('Käse')
    queue.undo()
    assert (path.read_bytes(), queue.current, queue.progress) == before

@pytest.mark.skipif(os.name == 'nt', reason='links and modes')
def test_link_and_mode_stay(folder):
    real, link = folder.parent/'shared.csv', folder.parent/'labels.csv'
    real.write_text('image,label\n'); real.chmod(0o664); link.symlink_to(real)
    LabelQueue(folder, link, CLASSES).label('cat')
    assert link.is_symlink() and len(real.read_text().splitlines()) == 2 and real.stat().st_mode & 0o777 == 0o664

def test_another_program_is_not_overwritten(folder):
    path = folder.parent/'labels.csv'
    one, two = (LabelQueue(folder, path, CLASSES) for _ in range(2))
    one.label('cat')
    with pytest.raises(ValueError, match='another program changed labels.csv'): two.label('Käse')
    assert path.read_text() == 'image,label\n#.png,cat\n'
    path.unlink()
    with pytest.raises(ValueError, match='another program changed labels.csv'): one.undo()
    assert not path.exists()

BAD = { # what the CSV holds: what is said
    b'': 'no column image', b'a.png,cat\n': 'no column image .columns found: a.png, cat', b'image,labels\n': 'no column label .*: rename labels',
    b'image,label,label\na.png,cat,\n': 'labels.csv has two columns label', b'image,label\na.png,cat\n./a.png,\n': 'lines 2 and 3: remove one',
    'image,label\na.png,Käse\n'.encode('cp1252'): 'labels.csv is not a CSV in UTF-8: save it as one', b'PK\x03\x04': 'is not a CSV in UTF-8',
    b'image,label\nA.PNG,cat\n': 'labels.csv: The folder has no image A.PNG: did you mean a.png', b'image,label\na.png,1.0\n': "the label '1.0'",
    'image,label\nü.png,Käse\n'.encode('cp1252'): 'is not a CSV in UTF-8', b'image,label\na.png,cat\na.png,\n': 'lines 2 and 3: remove one',
    b'image,label\na.png,cat,1\n': 'Line 2 of labels.csv', b'image,label\n"a.png,cat\n': 'Line 2 of labels.csv is not CSV',
    b'image,label\nz.png,cat\n': 'no image z.png', b'image,label\nold/a.png,cat\nsub/f.png,\n': 'no image old/a.png', b'image,label\na.png,Cat\n': "the label 'Cat': .* Did you mean cat"}

@pytest.mark.parametrize('raw,said', BAD.items(), ids=[o.decode('latin1') for o in BAD])
def test_bad_csv_is_refused_and_kept(folder, raw, said):
    path = folder.parent/'labels.csv'
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=said): LabelQueue(folder, path, CLASSES)
    assert path.read_bytes() == raw

KEPT = { # a table that others wrote: (its bytes, the same with a.png labelled as Käse)
    'as we write it': ('image,label\n', 'image,label\na.png,Käse\n'),
    'with a row for it': ('image,label\na.png,\nsub/f.png,cat\n', 'image,label\na.png,Käse\nsub/f.png,cat\n'),
    'with capitals': ('Image,Label\r\n', 'Image,Label\r\na.png,Käse\r\n'),
    'with blanks': ('image, label\nsub/f.png, cat\n', 'image, label\nsub/f.png, cat\na.png,Käse\n'),
    'with semicolons': ('image;label\r\nsub/f.png;cat\r\n', 'image;label\r\nsub/f.png;cat\r\na.png;Käse\r\n'),
    'with a line for Excel': ('sep=;\r\nimage;label\r\na.png;\r\n', 'sep=;\r\nimage;label\r\na.png;Käse\r\n'),
    'with tabs': ('image\tlabel\na.png\t\n', 'image\tlabel\na.png\tKäse\n'),
    'with the label first': ('label,image\n,a.png\n', 'label,image\nKäse,a.png\n'),
    'with other columns': ('image,label,remark\na.png,,"old, blurred"\nsub/f.png,,\n', 'image,label,remark\na.png,Käse,"old, blurred"\nsub/f.png,,\n'),
    'with other columns and no row for it': ('id,image,label\n1,sub/f.png,cat', 'id,image,label\n1,sub/f.png,cat\n,a.png,Käse'),
    'with a short row': ('image,remark,label\na.png\n', 'image,remark,label\na.png,,Käse\n'),
    'with the folder before': ('image,label\nimages/a.png,\nimages/sub/f.png,cat\n', 'image,label\nimages/a.png,Käse\nimages/sub/f.png,cat\n'),
    'with backslashes': ('image,label\n.\\a.png,\nsub\\f.png,cat\n', 'image,label\n.\\a.png,Käse\nsub\\f.png,cat\n'),
    'with a label of another form': ('image,label\nsub/f.png,Ka\u0308se\n', 'image,label\nsub/f.png,Ka\u0308se\na.png,Käse\n'),
    'with an image of another form': ('image,label\nu\u0308.png,cat \n', 'image,label\nu\u0308.png,cat \na.png,Käse\n')}

@pytest.mark.parametrize('code', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('what', KEPT)
def test_a_table_of_others_is_kept(folder, what, code):
    "Whatever it looks like, one label is added and can be taken back; `m2vaal_query` reads it as well."
    from m2vaal_nb.own_images.labels import csv_labels
    path, (before, after) = folder.parent/'labels.csv', KEPT[what]
    path.write_bytes(before.encode(code))
    queue = LabelQueue(folder, path, CLASSES, ['a.png', 'd "e".png'])
    queue.label('Käse')
    assert path.read_bytes() == after.encode(code)
    assert csv_labels(path, image_paths(folder), [].append)['a.png'] == 'Käse'
    assert LabelQueue(folder, path, CLASSES).file.label_of('a.png') == 'Käse'
    queue.undo()
    assert path.read_bytes() == before.encode(code) and queue.current == 'a.png'

def test_what_is_to_be_labelled_may_come_from_a_spreadsheet(folder):
    "Names of another form, a separator, columns in capitals: the same queue and the same hints."
    todo = folder.parent/'next.csv'
    todo.write_bytes('Image;Predicted\r\nu\u0308.png;Ka\u0308se \r\nsub\\f.png;\r\n'.encode('utf-16'))
    queue = LabelQueue(folder, folder.parent/'labels.csv', CLASSES, todo)
    assert queue.hints == {'ü.png': 'Käse', 'sub/f.png': ''} and queue.queue == ['ü.png', 'sub/f.png']

@pytest.mark.parametrize('classes,todo', [(CLASSES, ['z.png']), (CLASSES, ['a.png', 'a.png']), (CLASSES, 'none.csv'), ('cat', None), ([], None), (['cat', 'cat'], None), (['cat\n', 'cat'], None), (['Käse', 'Ka\u0308se'], None), ([1, 2], None), (CLASSES, ['a.png', './a.png'])])
def test_a_bad_request_writes_nothing(folder, classes, todo):
    with pytest.raises(ValueError): LabelQueue(folder, folder.parent/'labels.csv', classes, todo)
    assert [o.name for o in folder.parent.iterdir()] == ['images']

def test_the_same_images_as_the_query_and_empty_rows(folder):
    "What `m2vaal_query` picks can be labelled, whatever its suffix."
    from PIL import Image
    for o in 'p.bmp', 'q.TIF', 'r.tiff': Image.new('L', (4, 4), 99).save(folder/o, 'BMP' if o == 'p.bmp' else 'TIFF')
    (folder.parent/'labels.csv').write_bytes(b'image,label\r\n,\r\n')
    (folder.parent/'next.csv').write_bytes(b'image,predicted\r\nq.TIF,cat\r\np.bmp,\r\n,\r\n')
    queue = LabelQueue(folder, folder.parent/'labels.csv', CLASSES, folder.parent/'next.csv')
    assert queue.queue == ['q.TIF', 'p.bmp'] and picture(folder/'q.TIF') == picture(folder/'p.bmp')
    queue.label('cat')
    assert (folder.parent/'labels.csv').read_bytes() == b'image,label\r\n,\r\nq.TIF,cat\r\n'

def test_a_picture_that_cannot_be_shown_now_is_said(folder, monkeypatch):
    pytest.importorskip('ipywidgets')
    from m2vaal_nb.own_images import labeller, pixels
    lab = labeller.Labeller(folder, folder.parent/'labels.csv', CLASSES)
    def too_many(*_): raise OSError(24, 'Too many open files')
    monkeypatch.setattr(pixels, 'open', too_many, raising=False)
    lab.refresh()
    assert 'Too many open files' in lab.said.value and lab.queue.current

def test_imports_little():
    sh('python', '-c', 'import m2vaal_nb.own_images.labeller, sys; assert not {"torch", "PIL", "ipywidgets", "fastcore"} & set(sys.modules)', cwd=ROOT)
