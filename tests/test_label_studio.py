"What Label Studio exports is understood or refused in one sentence. The files in label_studio/ were written by a real one."
import codecs, json, unicodedata
from dataclasses import dataclass
from pathlib import Path
import pytest
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
            'Annotators disagree about 3 of 6 images: ground truth decides 1, the majority 1, and 1 have no label yet.',
            'They call 04 #.png both cat and dog: a ground truth, exported as JSON, would decide.',
            '4 tasks give no label: 1 skipped, 1 submitted without a choice, 1 with a draft only, 1 not annotated.']),
        (LABELS, [
            'Annotators disagree about 3 of 6 images: ground truth decides 0, the majority 1, and 2 have no label yet.',
            'They call 03 #.png both cat and dog: a ground truth, exported as JSON, would decide.',
            '3 tasks give no label: 1 submitted without a choice, 2 not annotated.'])),
    uploads=Scene(UPLOADS, *[(dict.fromkeys(UPLOADS, 'dog') | {'a cat.png': 'cat'}, [])]*2),
    taxonomy=Scene(['a 1.png', 'b.png'], ONE, ONE),
    controls=Scene(['a.png', 'b.png'],
        (dict(zip(('a.png', 'b.png'), ('cat', 'dog'))), ['Besides the class there is stars (rating), note (textarea), which is not read.']),
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
