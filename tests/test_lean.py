"The strategies beside numpy and PyTorch alone: whatever else `pip install .` brings may be missing."
import subprocess, sys
from configparser import ConfigParser
from importlib.metadata import packages_distributions
import numpy as np, pytest
from packaging.requirements import Requirement
from conftest import ROOT
from m2vaal_nb import samplers
from m2vaal_nb.beyond import doubt_herding, strategies                  # they join SAMPLERS
from m2vaal_nb.data import PoolView
from m2vaal_nb.samplers import SAMPLERS

BORROW = dict(typiclust='k-means needs scikit-learn: pip install scikit-learn',
              probcover='k-means needs scikit-learn: pip install scikit-learn',
              doubt_herding='Logistic regression needs scikit-learn: pip install scikit-learn',
              **dict.fromkeys(('doubt_shuffled', 'doubt_area', 'discriminator_zy', 'doubt_zy'),
                              'Logistic regression needs scikit-learn: pip install scikit-learn'),
              cluster_margin='Average linkage needs scipy: pip install scipy')
LEAN_MODULES = {m.__name__ for m in (samplers, strategies, doubt_herding)}     # evidence, and its controls, may ask for more
OURS = [name for name,f in SAMPLERS.items() if f.__module__ in LEAN_MODULES]

def missing():
    "Top-level names of all that is installed and required, but numpy, PyTorch and what PyTorch itself cannot go without."
    ini = ConfigParser(delimiters=['='])
    ini.read(ROOT/'settings.ini', encoding='utf-8')
    named = {Requirement(o).name.lower().replace('_', '-') for o in ini['DEFAULT']['requirements'].split()} - {'numpy', 'torch'}
    return sorted(top for top,dists in packages_distributions().items() if {d.lower().replace('_', '-') for d in dists} & named)

POOL = """
g = np.random.default_rng(0)
y = np.arange(90) % 3
z = np.array([[0., 0, 1], [3, 0, 1], [0, 3, 1]])[y] + g.normal(size=(90, 3))
z /= np.linalg.norm(z, axis=1, keepdims=True)
p = g.dirichlet([1, 1, 1], 81)
fields = dict(ids=np.arange(81), seed=3, p_N_C=p, z_N_D=z[9:], d_N=p[:,0], r_N=p[:,1], z_L_D=z[:9], y_L=y[:9], p_L_C=p[:9])
"""
LEAN = """
import sys
gone = NAMES
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in gone: raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing())
import numpy as np
POOL
from m2vaal_nb.data import PoolView
from m2vaal_nb.samplers import SAMPLERS
from m2vaal_nb.beyond import cover, doubt_herding, strategies
view = PoolView(**fields)
for name in OURS:
    try: print(name, *SAMPLERS[name](view, 7))
    except ImportError as e: print(name, e)
assert not gone & {name.partition('.')[0] for name in sys.modules}
print('delta', *strategies.probcover_rows(view.z_N_D, view.z_L_D, 7, 1.))
"""

@pytest.fixture(scope='module')
def lean():
    "What each strategy says where only numpy and PyTorch are."
    names = missing()
    assert {'fastcore', 'matplotlib', 'pandas', 'scipy', 'sklearn', 'torchvision', 'threadpoolctl', 'safetensors', 'filelock', 'PIL', 'tqdm'} <= {*names}
    code = LEAN.replace('NAMES', repr({*names})).replace('POOL', POOL).replace('OURS', repr(OURS))
    out = subprocess.run([sys.executable, '-W', 'error', '-c', code], capture_output=True, text=True)
    assert not out.returncode, out.stderr
    return dict(line.split(' ', 1) for line in out.stdout.splitlines())

@pytest.fixture(scope='module')
def view():
    there = dict(np=np)
    exec(POOL, there)
    return PoolView(**there['fields'])

@pytest.mark.parametrize('name', OURS)
def test_numpy_and_torch_are_enough(lean, view, name):
    "The same picks as here; what borrows a method of another package asks for it in one sentence."
    assert lean[name] == BORROW.get(name, ' '.join(map(str, SAMPLERS[name](view, 7))))

def test_a_given_radius_needs_no_clusters(lean, view):
    assert lean['delta'] == ' '.join(map(str, strategies.probcover_rows(view.z_N_D, view.z_L_D, 7, 1.)))

def test_importing_the_package_imports_nothing():
    code = "import sys; before = {*sys.modules}; import m2vaal_nb; print(*{*sys.modules} - before)"
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ['m2vaal_nb']
