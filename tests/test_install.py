"A stranger's installation: sdist, wheel from that sdist, import away from the checkout."
import ast, re, sys, zipfile
from configparser import ConfigParser
from email.parser import HeaderParser
from importlib.metadata import version
import pytest
from packaging.requirements import Requirement
from conftest import ROOT, sh

ini = ConfigParser(delimiters=['='])
ini.read(ROOT/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
EXTRAS = {k.removesuffix('_requirements'): v.split() for k,v in cfg.items() if k.endswith('_requirements')}
NEEDED = [Requirement(o).name for o in cfg['requirements'].split()]
IMPORTED_AS = {'scikit-learn': 'sklearn', 'pillow': 'PIL', 'scikit-activeml': 'skactiveml', 'modAL-python': 'modAL'}
OPTIONAL = {IMPORTED_AS.get(n, n) for e,v in EXTRAS.items() if e != 'dev' for n in (Requirement(o).name for o in v)}
MODULES = sorted('.'.join(o.relative_to(ROOT/'m2vaal_nb').with_suffix('').parts)
                 for o in (ROOT/'m2vaal_nb').rglob('*.py') if o.stem[0] != '_')

@pytest.fixture(scope='module')
def wheel(checkout):
    sh('python', '-c', 'from setuptools import build_meta; build_meta.build_sdist("dist")', cwd=checkout)
    sdist, = (checkout/'dist').glob('*.tar.gz')
    sh('python', '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', '.', sdist, cwd=sdist.parent)
    return next((checkout/'dist').glob('*.whl'))

@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp('target')
    sh('python', '-m', 'pip', 'install', '--no-deps', '--target', target, wheel, cwd=target)
    return target

def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = [o for o in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in o]
    weights = [o for o in (ROOT/'m2vaal_nb/beyond/weights').iterdir() if o.suffix in ('.safetensors', '.md')]
    assert len(weights) == 5
    assert sorted(names) == sorted(str(o.relative_to(ROOT)) for o in [*(ROOT/'m2vaal_nb').rglob('*.py'), *weights])

def test_metadata_is_that_of_settings(wheel):
    z = zipfile.ZipFile(wheel)
    info, = {o.split('/')[0] for o in z.namelist() if '.dist-info/' in o}
    meta = HeaderParser().parsestr(z.read(f'{info}/METADATA').decode())
    assert (meta['Name'], meta['Version'], meta['Requires-Python']) == (cfg['lib_name'], cfg['version'], f">={cfg['min_python']}")
    needs = meta.get_all('Requires-Dist')
    assert [o for o in needs if 'extra' not in o] == cfg['requirements'].split()
    by_extra = {e: {(r.name, r.specifier) for r in map(Requirement, needs) if r.marker and r.marker.evaluate({'extra': e})} for e in EXTRAS}
    assert by_extra['dev'] == {(r.name, r.specifier) for v in EXTRAS.values() for r in map(Requirement, v)}
    assert all(by_extra[e] == {(r.name, r.specifier) for r in map(Requirement, v)} for e,v in EXTRAS.items() if e != 'dev')
    assert meta.get_payload().strip() == (ROOT/'README.md').read_text(encoding='utf-8').strip()
    assert f'{info}/licenses/LICENSE' in z.namelist()

    scripts = ConfigParser(delimiters=['='])
    scripts.read_string(z.read(f'{info}/entry_points.txt').decode())
    assert [f'{k}={v}' for k,v in scripts['console_scripts'].items()] == sorted(cfg['console_scripts'].split())

def test_every_requirement_says_from_which_version_on():
    "What an older one lacks is found by pip, not by a traceback; torchvision comes in pairs with torch."
    needs = {r.name: r.specifier for r in map(Requirement, cfg['requirements'].split())}
    assert {name for name,spec in needs.items() if '>=' not in str(spec)} == {'torchvision'}
    too_old = dict(numpy='1.26.4', pillow='10.0.1', pandas='2.0.3', fastcore='1.5.29')
    assert not [name for name,old in too_old.items() if old in needs[name]]
    assert all(version(name) in spec for name,spec in needs.items())

@pytest.mark.parametrize('script', cfg['console_scripts'].split(), ids=lambda o: o.split('=')[0])
def test_commands_start_without_torch(installed, script):
    "`--help` and a mistyped option should not wait for it."
    module, name = script.split('=')[1].split(':')
    sh('python', '-c', f'from {module} import {name}\nimport sys; assert "torch" not in sys.modules', cwd=installed, PYTHONPATH=str(installed))

def test_imports_away_from_the_checkout(installed):
    "And without the extras."
    code = '\n'.join(f'import m2vaal_nb.{o}' for o in MODULES)
    where = sh('python', '-c', f'import sys\nfor o in {OPTIONAL | {"nbdev"}}: sys.modules[o] = None\n{code}\nprint(m2vaal_nb.__file__)', cwd=installed, PYTHONPATH=str(installed))
    assert where.strip() == str(installed/'m2vaal_nb/__init__.py')

def test_published_weights_are_installed(installed):
    code = 'from m2vaal_nb.beyond.representation import LEARNED, PUBLISHED\nfor o in PUBLISHED.values(): print(o.published, o.name)'
    said = sh('python', '-c', code, cwd=installed, PYTHONPATH=str(installed)).split()
    card = (ROOT/'m2vaal_nb/beyond/weights/README.md').read_text(encoding='utf-8')
    assert len(said) == 8 and all(o.startswith(str(installed)) for o in said[::2])
    assert all(o.split('@')[1] in card for o in said[1::2])

def test_version_is_that_of_settings():
    assert f"__version__ = \"{cfg['version']}\"" in (ROOT/'m2vaal_nb/__init__.py').read_text()
    assert re.search(rf"^version: {re.escape(cfg['version'])}$", (ROOT/'CITATION.cff').read_text(), flags=re.M)

@pytest.mark.parametrize('module', MODULES)
def test_imports_only_what_is_required(module):
    "Development tools are not there after a plain `pip install`; an extra's packages are imported where they are used, under `try` or a function."
    tree = ast.walk(ast.parse((ROOT/'m2vaal_nb'/f"{module.replace('.', '/')}.py").read_text(encoding='utf-8')))
    names = [o.module if isinstance(o, ast.ImportFrom) else a.name
             for o in tree if isinstance(o, ast.Import) or isinstance(o, ast.ImportFrom) and not o.level
             for a in o.names]
    allowed = {'m2vaal_nb', *sys.stdlib_module_names, *(IMPORTED_AS.get(o, o) for o in NEEDED), *OPTIONAL}
    assert {o.split('.')[0] for o in names} <= allowed
