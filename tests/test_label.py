"Labelling, whatever is clicked in whatever order: no row is lost, undo goes back to the byte, a crash costs nothing."
import csv, os
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from conftest import ROOT, sh
from m2vaal_nb.interop.label_studio import picture
from m2vaal_nb.own_images.labeller import LabelQueue

NAMES, CLASSES = [f'{o}.png' for o in ('a', 'b,c', 'd "e"', 'sub/f', 'ü', '#')], ['cat', 'a dog, or two', 'Käse']
def quoted(s): return '"' + s.replace('"', '""') + '"'
def line(name, label, style): return (quoted(name) if style or set(name) & set(',"') else name) + (',' if label or style != 1 else '') + (quoted(label) if ',' in label or style == 2 else label)

@pytest.fixture
def folder(tmp_path):
    (tmp_path/'images/sub').mkdir(parents=True)
    for o in NAMES: (tmp_path/'images'/o).touch()
    return tmp_path/'images'

rows = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(['', *CLASSES]), st.integers(0, 2)), unique_by=lambda o: o[0])
steps = st.lists(st.sampled_from([*CLASSES, 'skip', 'undo', 'again']), max_size=25)

@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows, st.sampled_from(['\n', '\r\n']), st.booleans(), st.sampled_from(['', '\ufeff']), st.permutations(NAMES), steps)
@example([('a.png', '', 0)], '\n', False, '', ['ü.png', *(o for o in NAMES if o != 'ü.png')], ['cat', 'cat'])     # a row behind a last line that has no end
def test_any_order_of_steps(folder, rows, end, ended, bom, todo, steps):
    path = folder.parent/'labels.csv'
    path.write_bytes((bom + end.join(['image,label', *(line(*o) for o in rows)]) + (end if ended else '')).encode())
    known = {name: label for name,label,_ in rows if label}
    queue, past = LabelQueue(folder, path, CLASSES, todo), []
    for step in steps:
        now = path.read_bytes(), queue.current, dict(known)
        if step == 'again': queue, past = LabelQueue(folder, path, CLASSES, todo), []       # the kernel was restarted
        elif step == 'undo':
            if not past:
                with pytest.raises(ValueError, match='nothing to undo'): queue.undo()
                continue
            queue.undo()
            *before, known = past.pop()
            assert [path.read_bytes(), queue.current] == before
        elif queue.current is None:
            with pytest.raises(ValueError, match='Every image has its label'): queue.skip() if step == 'skip' else queue.label(step)
        else:
            if step == 'skip': queue.skip()
            else: known[queue.current] = step; queue.label(step)
            past.append(now)
        with path.open(newline='', encoding='utf-8-sig') as f: found = [(r['image'], r['label'] or '') for r in csv.DictReader(f)]
        assert {o: label for o,label in found if label} == known and queue.progress == (len(known), len(NAMES))
        assert [o for o,_ in found][:len(rows)] == [o for o,*_ in rows] and len(dict(found)) == len(found)
        lines = path.read_bytes().decode().split(end)
        assert all(line(*o) == kept for o,kept in zip(rows, lines[1:]) if o[1]), 'a row with a label is never rewritten'
        assert '' not in lines[:-1]
        assert sorted(queue.queue) == sorted(set(NAMES) - known.keys())

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
    b'': 'must begin with the line image,label', b'a.png,cat\n': 'must begin with', b'image;label\n': 'must begin with',
    'image,label\nü.png,Käse\n'.encode('cp1252'): 'is not a CSV in UTF-8', b'image,label\na.png,cat\na.png,\n': 'lines 2 and 3: remove one',
    b'image,label\na.png,cat,1\n': 'Line 2 of labels.csv', b'image,label\n"a.png,cat\n': 'Line 2 of labels.csv is not CSV',
    b'image,label\nz.png,cat\n': 'no image z.png', b'image,label\n./a.png,cat\n': 'no image ./a.png', b'image,label\na.png,Cat\n': "the label 'Cat'"}

@pytest.mark.parametrize('raw,said', BAD.items(), ids=[o.decode('latin1') for o in BAD])
def test_bad_csv_is_refused_and_kept(folder, raw, said):
    path = folder.parent/'labels.csv'
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=said): LabelQueue(folder, path, CLASSES)
    assert path.read_bytes() == raw

@pytest.mark.parametrize('classes,todo', [(CLASSES, ['z.png']), (CLASSES, ['a.png', 'a.png']), (CLASSES, 'none.csv'), ('cat', None), ([], None), (['cat', 'cat'], None), (['cat\n'], None)])
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

def test_imports_little():
    sh('python', '-c', 'import m2vaal_nb.own_images.labeller, sys; assert not {"torch", "PIL", "ipywidgets", "fastcore"} & set(sys.modules)', cwd=ROOT)
