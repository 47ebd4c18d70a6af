"""What Label Studio exports is understood or refused in one sentence.
The files in label_studio/ were written by a real one: see test_label_studio_server.py."""
import codecs, json, unicodedata
from dataclasses import dataclass
from pathlib import Path
import pandas as pd, pytest
from m2vaal_nb.foundations.names import match_paths
from m2vaal_nb.interop.label_studio import *

KEPT = Path(__file__).with_name('label_studio')
ENDS = dict(JSON='.json', JSON_MIN='.min.json', CSV='.csv', TSV='.tsv') # Of the exports of a project, by format

@dataclass
class Scene:
    "What is read from the exports of a project: labels and notices, or what a refusal says."
    paths: list
    full: tuple|str   # From JSON
    rows: tuple|str   # From the other formats

ONE = ({'a 1.png': 'cat', 'b.png': 'dog'}, [])
PHOTOS = ['00 #.png', '01 #.png', '02 #.png', '03 #.png', '04 #.png', '05 #.png',
          'new ones/06.png', 'new ones/07.png', 'new ones/08.png', 'new ones/Käse.png']
LABELS = {'00 #.png': 'cat', '01 #.png': 'dog', 'new ones/07.png': 'hen & co', 'new ones/Käse.png': 'Käse'}
UPLOADS = ['a cat.png', 'Käse (1) #.png', 'sub/deep.png', 'IMG.PNG', 'x+y%20&z.png']

SCENES = dict(
    photos=Scene(PHOTOS,
        (LABELS | {'03 #.png': 'dog'}, [
            'Annotators disagree about 3 of 6 images: 1 decided by ground truth, 1 by the majority, 1 not at all.',
            'They call 04 #.png both cat and dog: a ground truth, exported as JSON, would decide.',
            'Tasks without a label: 1 skipped, 1 submitted without a choice, 1 with a draft only, 1 not annotated.']),
        (LABELS, [
            'Annotators disagree about 3 of 6 images: 0 decided by ground truth, 1 by the majority, 2 not at all.',
            'They call 03 #.png both cat and dog: a ground truth, exported as JSON, would decide.',
            'Tasks without a label: 1 submitted without a choice, 2 not annotated.'])),
    uploads=Scene(UPLOADS, *[(dict.fromkeys(UPLOADS, 'dog') | {'a cat.png': 'cat'}, [])]*2),
    taxonomy=Scene(['a 1.png', 'b.png'], ONE, ONE),
    controls=Scene(['a.png', 'b.png'],
        ({'a.png': 'cat', 'b.png': 'dog'},
         ['Besides the class there is stars (rating), note (textarea), which is not read.']),
        'has columns choice, note: which of them is the class, only JSON can tell.'),
    boxes=Scene(['a.png'], *['has rectanglelabels: the class of an image must come from Choices or a Taxonomy.']*2),
    several=Scene(['a.png'], *['gives a.png more than one class (cat, dog): each image needs exactly one.']*2))

def outcome(file, paths):
    "Labels and notices, or the sentence of a refusal, less the name of the file."
    said = []
    try: return read_export(file, paths, said.append), [line.removeprefix(f'{file}: ') for line in said]
    except ValueError as e: return str(e).removeprefix(f'{file} ')

def check_scene(file, name):
    scene = SCENES[name]
    assert outcome(file, scene.paths) == (scene.full if file.suffixes == ['.json'] else scene.rows)
    assert is_export(file)

@pytest.mark.parametrize('end', ENDS.values())
@pytest.mark.parametrize('name', SCENES)
def test_a_real_export(name, end): check_scene(KEPT/f'{name}{end}', name)

# --- siblings: an odd export and what comes of it, labels (and a notice) or a sentence ---
PATHS = ['a.png', 'b 1.png', 'cats/a.png', 'IMG_0000.PNG', 'Käse.png']
def choices(*names, control='label', **more):
    return dict(from_name=control, to_name='image', type='choices', value=dict(choices=list(names)) | more)
def by(*results, **more): return dict(result=list(results), **more)
def of(image, *annotations, **more): return dict(data=dict(image=image), annotations=list(annotations), **more)
def other(kind, control=None, **value): return dict(from_name=control or kind, to_name='image', type=kind, value=value)
def tree(*steps): return other('taxonomy', 'label', taxonomy=[list(o) for o in steps])
def row(image='a.png', label='cat', **more): return dict(image=image, label=label, annotation_id=1, annotator=1) | more
def sheet(*lines, head='annotation_id,image,label', code='utf-8'): return '\r\n'.join([head, *lines, '']).encode(code)
def cat(image): return of(image, by(choices('cat')))
A, NFD = {'a.png': 'cat'}, lambda s: unicodedata.normalize('NFD', s)

ODD = { # what is odd: (the file, as bytes or what JSON holds; labels, or what the sentence says; its only notice)
    # files
    'a byte order mark': (codecs.BOM_UTF8 + json.dumps([cat('a.png')]).encode(), A, None),
    'JSON in UTF-16': (json.dumps([cat('a.png')]).encode('utf-16'), A, None),
    'one task, without a list': (cat('a.png'), A, None),
    'no task': ([], {}, None),
    'an empty file': (b'', 'neither JSON nor a table with a column annotation_id', None),
    'half a file': (json.dumps([cat('a.png')]).encode()[:-9], 'is not an export', None),
    'JSON of something else': (dict(a=1), 'there is no image in it', None),
    'a list of words': (['cat'], 'it is no list of tasks', None),
    'COCO': (dict(images=[dict(file_name='a.png')], annotations=[], categories=[]), 'there is no image in it', None),
    'what was imported': ([dict(data=dict(image='a.png'), predictions=[by(choices('cat'))])],
        'may be what was imported', None),
    'a picture': (b'\x89PNG\r\n\x1a\n', 'neither JSON nor a table in UTF-8', None),
    'results that are words': ([of('a.png', dict(result='cat'))], 'a task has another form', None),
    'annotations that are numbers': ([of('a.png', 7)], 'a task has another form', None),
    'a class that is a number': ([of('a.png', by(choices(3)))], 'a task has another form', None),
    'an annotation without results': ([of('a.png', by(choices('cat')), dict(result=None))], A, None),
    # answers
    'the old key `completions`': ([dict(data=dict(image='a.png'), completions=[by(choices('cat'))])], A, None),
    'the same choice in two results': ([of('a.png', by(choices('cat'), choices('cat')))], A, None),
    'the same choice twice in one': ([of('a.png', by(choices('cat', 'cat')))], A, None),
    'blanks around a choice': ([of('a.png', by(choices(' cat\t'))), cat('b 1.png')], A | {'b 1.png': 'cat'}, None),
    'a choice in two Unicode forms': ([of('a.png', by(choices('Käse'))), of('b 1.png', by(choices(NFD('Käse'))))],
        {'a.png': 'Käse', 'b 1.png': 'Käse'}, None),
    'no choice': ([of('a.png', by(choices())), cat('b 1.png')],
        {'b 1.png': 'cat'}, 'Tasks without a label: 1 submitted without a choice.'),
    'an empty choice': ([of('a.png', by(choices(' ')))], {}, '1 submitted without a choice'),
    'two choices': ([of('a.png', by(choices('cat'), choices('dog')))],
        'gives a.png more than one class (cat, dog)', None),
    'two choices in one': ([of('a.png', by(choices('dog', 'cat')))], 'more than one class (cat, dog)', None),
    'a choice for a box': ([of('a.png', by(choices('cat', x=1, y=1, width=5, height=5)))],
        'has choices for parts of images', None),
    'a taxonomy': ([of('a.png', by(tree(['animal', 'cat'])))], A, None),
    'a taxonomy beside choices of one name': ([of('a.png', by(tree(['animal', 'cat']))), cat('b 1.png')],
        A | {'b 1.png': 'cat'}, None),
    'two leaves': ([of('a.png', by(tree(['animal', 'cat'], ['animal', 'dog'])))],
        'more than one class (cat, dog)', None),
    'a leaf in two places': ([of('a.png', by(tree(['fish', 'bass']))), of('b 1.png', by(tree(['guitar', 'bass'])))],
        'one name in two places, fish > bass and guitar > bass', None),
    'boxes': ([of('a.png', by(other('rectanglelabels', x=1, rectanglelabels=['cat'])))],
        'has rectanglelabels: the class of an image must come from Choices', None),
    'words': ([of('a.png', by(other('textarea', text=['cat'])))], 'has textarea', None),
    'a rating beside the class': ([of('a.png', by(choices('cat'), other('rating', rating=3)))],
        A, 'Besides the class there is rating (rating), which is not read.'),
    'a relation beside the class': ([of('a.png', by(choices('cat'), dict(type='relation', from_id='a', to_id='b')))],
        A, 'None (relation)'),
    'two controls': ([of('a.png', by(choices('cat', control='species'), choices('good', control='light')))],
        'has choices under species, light: that of the class must be called label', None),
    'two controls, one called label': ([of('a.png', by(choices('cat'), choices('good', control='light')))],
        A, 'light (choices), which is not read'),
    # people
    'two who agree': ([of('a.png', by(choices('cat'), completed_by=1), by(choices('cat '), completed_by=2))],
        A, None),
    'two who disagree': ([of('a.png', by(choices('cat')), by(choices('dog'))), cat('b 1.png')],
        {'b 1.png': 'cat'}, 'Annotators disagree about 1 of 2 images'),
    'three, of whom two agree': ([of('a.png', by(choices('dog')), by(choices('cat')), by(choices('cat')))],
        A, '1 by the majority, 0 not at all.'),
    'a ground truth': ([of('a.png', by(choices('dog')), by(choices('dog')), by(choices('cat'), ground_truth=True))],
        A, '1 decided by ground truth'),
    'an old ground truth': ([of('a.png', by(choices('dog')), by(choices('cat'), honeypot=True))],
        A, '1 decided by ground truth'),
    'two ground truths that disagree': ([of('a.png', *[by(choices(c), ground_truth=True) for c in ('cat', 'dog')])],
        {}, 'They call a.png both cat and dog'),
    'two tasks of one image that disagree': ([cat('a.png'), of('./a.png', by(choices('dog')))],
        {}, 'They call a.png both cat and dog'),
    'two tasks of one image that agree': ([cat('a.png'), cat('a.png')], A, None),
    'one who skipped': ([of('a.png', by(choices('dog'), was_cancelled=True), by(choices('cat')))], A, None),
    'all who skipped': ([of('a.png', by(choices('dog'), was_cancelled=True))],
        {}, 'Tasks without a label: 1 skipped.'),
    'an old skip': ([of('a.png', by(choices('dog'), skipped=True))], {}, '1 skipped'),
    'a draft': ([of('a.png', drafts=[by(choices('cat'))])], {}, '1 with a draft only'),
    'a prediction': ([of('a.png', predictions=[by(choices('cat'))])], {}, '1 not annotated'),
    # images
    'a folder below the root': ([cat('/data/local-files/?d=photos/b%201.png')], {'b 1.png': 'cat'}, None),
    'a host before it': ([cat('http://localhost:8080/data/local-files/?d=photos/b%201.png')],
        {'b 1.png': 'cat'}, None),
    'an upload': ([cat('/data/upload/1/3f2a9c1b-b_1.png')], {'b 1.png': 'cat'}, None),
    'an upload of old': ([cat('/data/upload/3f2a9c1b-K%C3%A4se.png')], {'Käse.png': 'cat'}, None),
    'an upload of two names': ([cat('/data/upload/1/3f2a9c1b-a.png')],
        'may be a.png or cats/a.png: name it by its path in the folder', None),
    'a date before a name is no upload': ([cat('20240101-a.png')], 'The folder has no image 20240101-a.png', None),
    'a dot and a slash': ([cat('./a.png')], A, None),
    'backslashes': ([cat(r'.\cats\a.png')], {'cats/a.png': 'cat'}, None),
    'a path on Windows': ([cat(r'C:\me\photos\b 1.png')], {'b 1.png': 'cat'}, None),
    'an absolute path': ([cat('/home/me/photos/b 1.png')], {'b 1.png': 'cat'}, None),
    'a path that is encoded': ([cat('b%201.png')], {'b 1.png': 'cat'}, None),
    'an address with a query': ([cat('https://my.org/x/b%201.png?signature=a/a.png')], {'b 1.png': 'cat'}, None),
    'an address in a bucket': ([cat('s3://mine/photos/b 1.png')], {'b 1.png': 'cat'}, None),
    'a name in the other Unicode form': ([cat(NFD('Käse.png'))], {'Käse.png': 'cat'}, None),
    'two ends': ([cat('/photos/cats/a.png')], 'may be a.png or cats/a.png', None),
    'two ends, but one beginning': ([cat('/photos/cats/a.png'), cat('/photos/b 1.png')],
        {'cats/a.png': 'cat', 'b 1.png': 'cat'}, None),
    'the folder of the same name': ([cat('cats/a.png'), cat('cats/cats/a.png')], A | {'cats/a.png': 'cat'}, None),
    'two beginnings of one end': ([cat('x/b 1.png'), cat('y/b 1.png')],
        'Both x/b 1.png and y/b 1.png may be b 1.png: leave one of them out.', None),
    'another case': ([cat('img_0000.png')], 'The folder has no image img_0000.png: did you mean IMG_0000.PNG?', None),
    'another ending': ([cat('photos/b 1.jpg'), cat('zzz.png')],
        'did you mean b 1.png?', None),
    'another folder': ([cat('zzzzzzzz')], 'The folder has no image zzzzzzzz', None),
    'an image elsewhere that nobody labelled': ([cat('a.png'), of('x.png')], A, '1 not annotated'),
    'another key': ([dict(data=dict(photo='a.png', text='hello'), annotations=[by(choices('cat'))])], A, None),
    'two images': ([dict(data=dict(left='a.png', right='b.png'), annotations=[by(choices('cat'))])],
        'names 2 images, under left, right: it must be one', None),
    'no image': ([dict(data=dict(text='hello'), annotations=[by(choices('cat'))])],
        'names 0 images, under text', None),
    'our path': ([dict(data=dict(image='http://x/y', path='cats/a.png'), annotations=[by(choices('cat'))])],
        {'cats/a.png': 'cat'}, None),
    # JSON-MIN
    'rows': ([row(), row('b 1.png', 'dog')], A | {'b 1.png': 'dog'}, None),
    'a row without an answer': ([row(), dict(image='b 1.png', annotation_id=2), dict(image='cats/a.png')],
        A, 'Tasks without a label: 1 submitted without a choice, 1 not annotated.'),
    'a row with one choice twice': ([row(label=['cat', 'cat'])], A, None),
    'a row with two choices': ([row(label=dict(choices=['cat', 'dog']))], 'more than one class (cat, dog)', None),
    'a row with a leaf': ([row(label=[dict(taxonomy=[['animal', 'cat']])])], A, None),
    'a row with a box': ([row(label=[dict(x=1, rectanglelabels=['cat'])])], 'has rectanglelabels', None),
    'rows that disagree': ([row(), row(label='dog')], {}, 'They call a.png both cat and dog'),
    'another name of the control': ([dict(image='a.png', choice='cat', annotation_id=1)], A, None),
    'a number beside it': ([row(width=640)], A, None),
    'a word beside it': ([row(source='web')],
        'has columns label, source: which of them is the class, only JSON can tell.', None),
    'a column of tasks under the same name': ([row(_data_label='x')], A, None),
    # CSV and TSV
    'a table': (sheet('1,a.png,cat', '2,b 1.png,'), A, '1 submitted without a choice'),
    'a table with tabs': (sheet('1\ta.png\tcat', head='annotation_id\timage\tlabel'), A, None),
    'a table with semicolons': (sheet('1;a.png;cat', head='annotation_id;image;label'), A, None),
    'a table with a byte order mark': (sheet('1,a.png,cat', code='utf-8-sig'), A, None),
    'a table in UTF-16': (sheet('1\ta.png\tcat', head='annotation_id\timage\tlabel', code='utf-16'), A, None),
    'a table with one choice twice': (sheet('1,a.png,"[""cat"",""cat""]"'), A, None),
    'a table with two choices': (sheet('1,a.png,"{""choices"":[""cat"",""dog""]}"'),
        'more than one class (cat, dog)', None),
    'a class in brackets': (sheet('1,a.png,[cat]'), {'a.png': '[cat]'}, None),
    'a class that is JSON': (sheet('1,a.png,[1]'), {'a.png': '[1]'}, None),
    'a comma too many': (sheet('1,a.png,cat,dog'), 'a line has more values than the first', None),
    'a quote that is not closed': (sheet('1,a.png,"cat'), 'neither JSON nor a table', None),
    'a table in another encoding': (sheet('1,a.png,Käse', code='cp1252'), 'neither JSON nor a table in UTF-8', None),
    'a table of something else': (b'image,label\r\na.png,cat\r\n', 'with a column annotation_id', None),
}

@pytest.mark.parametrize('what', ODD)
def test_an_odd_export(what, tmp_path):
    raw, expected, notice = ODD[what]
    file = tmp_path/'e.json'
    file.write_bytes(raw if isinstance(raw, bytes) else json.dumps(raw).encode())
    came = outcome(file, PATHS)
    if isinstance(expected, str): assert isinstance(came, str) and expected in came and '\n' not in came; return
    labels, said = came
    assert labels == expected and (not said if notice is None else any(notice in line for line in said))

def test_every_odd_name_of_a_file_is_found():
    "What stands on a disk is found by its own name, whatever is in it."
    names = ['a%20b.png', 'a b.png', ' blank.png', '20 #.png', 'what?.png']
    names += ['Käse.png', NFD('Käse.png')]
    assert match_paths(names, names) == dict(zip(names, names))
    tasks = label_studio_tasks(pd.DataFrame(dict(image=names[:5], predicted=None)), 'margin', served_at('my photos'))
    assert list(match_paths([t['data']['image'] for t in tasks], names).values()) == names[:5]

BEFORE = ['photos/', '/data/local-files/?d=my/photos/', 'https://my.org/', 'C:\\photos\\', 'C:\\\\photos\\\\']
@pytest.mark.parametrize('before', BEFORE)
def test_no_image_is_taken_for_another(before):
    "Whatever is named after a strange prefix, it is found or refused."
    tree = ['a.png', 'cats/a.png', 'cats/cats/a.png', 'dogs/cats/a.png', 'dogs/b.png']
    for n in range(1, 2**len(tree)):
        named = [p for i,p in enumerate(tree) if n >> i & 1]
        try: found = match_paths([before + p for p in named], tree)
        except ValueError as e: assert 'may be' in str(e) and 'a.png' not in named and 'dogs/b.png' not in named
        else: assert list(found.values()) == named
