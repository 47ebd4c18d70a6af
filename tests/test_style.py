"The house: who may import whom; and code that can be read aloud: its width, its density, short notebooks, short cells."
import ast, json, re
import numpy as np
import pytest
from conftest import NBS, ROOT

WIDTH, CELLS, DEFINITIONS, EXPORTED_LINES = 120, 70, 28, 45
# Syntax nodes a line: in examples, one thought a line, 8 on average at the most; in exports, 18 at the most on 95 of 100 lines
EXAMPLES_MEAN, EXPORTS_P95 = 8, 18

ROOMS = ('data', 'models', 'losses', 'samplers', 'loop', 'experiments')
ORDER = ('foundations', *ROOMS, 'interop', 'scale', 'paper', 'beyond', 'own_images', 'cli')

def code_cells(nb):
    for c in json.loads(nb.read_text(encoding='utf-8'))['cells']:
        if c['cell_type'] == 'code': yield ''.join(c['source'])

def is_export(source): return bool(re.search(r'^#\|\s*exports?\b', source, re.M))

def parsed(source):
    "A cell's syntax tree; None where it holds imports only, or nothing."
    try: tree = ast.parse(source)
    except SyntaxError: return None      # a magic
    if all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in tree.body): return None
    return tree

def nodes_a_line(tree):
    "How many syntax nodes begin on each line that has any."
    counts = {}
    for o in ast.walk(tree):
        if hasattr(o, 'lineno'): counts[o.lineno] = counts.get(o.lineno, 0) + 1
    return list(counts.values())

def density(nbs, exported):
    trees = [parsed(s) for nb in nbs for s in code_cells(nb) if is_export(s) == exported]
    return np.array([n for tree in trees if tree for n in nodes_a_line(tree)])

def lines_over(nb, width): return [l for s in code_cells(nb) for l in s.splitlines() if len(l) > width and not l.startswith('#|')]

def definitions(sources):
    kinds = ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef
    return [o.name for s in sources if is_export(s) for o in ast.parse(s).body if isinstance(o, kinds)]

def asserts(source):
    "Does an example check anything?"
    tree = parsed(source)
    nodes = list(ast.walk(tree)) if tree else []
    calls = [getattr(o.func, 'id', getattr(o.func, 'attr', '')) for o in nodes if isinstance(o, ast.Call)]
    return any(isinstance(o, ast.Assert) for o in nodes) or any(re.match('test_|assert_|ExceptionExpected', name) for name in calls)

def unchecked(sources):
    "Definitions of cells that no asserting example follows before the next exported cell."
    found, waiting = [], []
    for source in sources:
        if is_export(source): found, waiting = found + waiting, definitions([source])
        elif asserts(source): waiting = []
    return found + waiting

by_name = dict(ids=lambda nb: str(nb.relative_to(ROOT/'nbs').with_suffix('')))

@pytest.mark.parametrize('nb', NBS, **by_name)
def test_width(nb):
    assert not lines_over(nb, WIDTH)

@pytest.mark.parametrize('nb', NBS, **by_name)
def test_notebooks_are_short(nb):
    assert len(json.loads(nb.read_text(encoding='utf-8'))['cells']) <= CELLS
    assert len(definitions(code_cells(nb))) <= DEFINITIONS

@pytest.mark.parametrize('nb', NBS, **by_name)
def test_exported_cells_are_short(nb):
    long = [s for s in code_cells(nb) if is_export(s) and len([l for l in s.splitlines() if l.strip()]) > EXPORTED_LINES]
    assert not [s.splitlines()[1] for s in long]

@pytest.mark.parametrize('nb', NBS, **by_name)
def test_examples_follow_at_once(nb):
    assert not unchecked(code_cells(nb))

@pytest.mark.parametrize('nb', NBS, **by_name)
def test_no_function_is_taken_for_a_test(nb):
    "pytest would collect it wherever a test imports it."
    assert not [name for name in definitions(code_cells(nb)) if name.startswith('test')]

def test_what_an_example_is():
    export, shows, asserts, names = '#| export\ndef f(): pass', 'x_test[0]', 'assert f() is None', 'test_eq(f(), None)'
    assert unchecked([export, shows]) == unchecked([export, shows, export, asserts]) == ['f']
    assert not unchecked([export, asserts, export, shows, names]) and not unchecked(['#| export\nimport re', shows])

def test_density():
    examples, exports = density(NBS, False), density(NBS, True)
    assert examples.mean() <= EXAMPLES_MEAN and np.percentile(exports, 95) <= EXPORTS_P95

# --- who imports whom ---
def modules():
    "Name -> path of every module of the package."
    files = [o for o in (ROOT/'m2vaal_nb').rglob('*.py') if o.stem[0] != '_']
    return {'.'.join(o.relative_to(ROOT/'m2vaal_nb').with_suffix('').parts): o for o in files}

def imported(name, path):
    "The modules of the package that one imports, at its top or in a function."
    found, package = set(), name.split('.')[:-1]
    for o in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(o, ast.ImportFrom):
            if o.level: base = [*package[:len(package) - o.level + 1], *(o.module or '').split('.')]
            elif (o.module or '').split('.')[0] == 'm2vaal_nb': base = o.module.split('.')[1:]
            else: continue
            base = [b for b in base if b]
            found |= {'.'.join([*base, a.name]) if '.'.join(base) not in GRAPH_NAMES else '.'.join(base) for a in o.names}
    return found & GRAPH_NAMES

GRAPH_NAMES = set(modules())
GRAPH = {name: imported(name, path) for name,path in modules().items()}

def place(name): return ORDER.index(name.split('.')[0])

@pytest.mark.parametrize('name', GRAPH)
def test_no_import_points_backwards(name):
    assert not [o for o in GRAPH[name] if place(o) > place(name)]

@pytest.mark.parametrize('name', ROOMS)
def test_rooms_import_no_wing_but_foundations(name):
    assert {o.split('.')[0] for o in GRAPH[name]} <= {'foundations', *ROOMS}

def test_no_circles():
    left = {name: set(needs) for name,needs in GRAPH.items()}
    while free := [name for name,needs in left.items() if not needs & left.keys()]:
        for name in free: del left[name]
    assert not left

def test_a_module_has_its_notebooks_name():
    exporting = {nb for nb in NBS if any(is_export(s) for s in code_cells(nb))}
    names = {re.sub(r'^\d\d_', '', str(nb.relative_to(ROOT/'nbs').with_suffix(''))).replace('/', '.') for nb in exporting}
    assert names == GRAPH_NAMES

if __name__ == '__main__':     # python tests/test_style.py: each notebook's numbers
    print(f"{'notebook':34} cells defs >100 >120 examples exports long")
    for nb in NBS:
        ex, sh = density([nb], True), density([nb], False)
        long = [s for s in code_cells(nb) if is_export(s) and len([l for l in s.splitlines() if l.strip()]) > EXPORTED_LINES]
        n = len(json.loads(nb.read_text(encoding='utf-8'))['cells'])
        print(f"{str(nb.relative_to(ROOT/'nbs')):34} {n:5} {len(definitions(nb)):4} {len(lines_over(nb, 100)):4} {len(lines_over(nb, 120)):4} "
              f"{sh.mean() if len(sh) else 0:8.1f} {np.percentile(ex, 95) if len(ex) else 0:7.1f} {len(long):4}")
    print(f"all: examples {density(NBS, False).mean():.1f}, exports {np.percentile(density(NBS, True), 95):.1f}")
