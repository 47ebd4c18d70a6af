"What can be said about the site without Quarto: nbdev's half of the work runs, and links, citations and references hold."
import json, re
from pathlib import Path
import pytest, yaml
from conftest import NBS, ROOT, sh

CROSSREF = 'eq fig tbl sec lst thm def exm nte tip wrn imp cau'.split()
nb_ids = dict(ids=lambda o: o.stem)

def cells(nb, kind): return [''.join(o['source']) for o in json.loads(nb.read_text(encoding='utf-8'))['cells'] if o['cell_type'] == kind]
def prose(nb):
    "All Markdown of `nb`, without code and formulas."
    return re.sub(r'```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$', '', '\n\n'.join(cells(nb, 'markdown')), flags=re.S)

def test_nbdev_prepares_every_page(checkout):
    sh('python', '-c', 'from nbdev.quarto import *; from nbdev.serve import proc_nbs\n'
                       'refresh_quarto_yml(); nbdev_sidebar.__wrapped__(); proc_nbs(n_workers=2)', cwd=checkout)
    site = checkout/'_proc'
    for nb in NBS:
        front = cells(site/nb.relative_to(ROOT/'nbs'), 'raw')
        assert front and yaml.safe_load(front[0].strip('-\n'))['title'], nb.name
    conf = yaml.safe_load((site/'_quarto.yml').read_text())
    for name in [*conf['metadata-files'], conf['bibliography'], conf['format']['html']['css']]: assert (site/name).exists(), name

def test_the_sidebar_has_every_page_once():
    first, *sections = yaml.safe_load((ROOT/'_quarto.yml').read_text())['website']['sidebar']['contents']
    pages = [first, *(page for s in sections for page in s['contents'])]
    assert first == 'index.ipynb' and sorted(pages) == sorted(str(nb.relative_to(ROOT/'nbs')) for nb in NBS)

def test_quarto_settings_stand_at_the_root():
    assert (ROOT/'nbs/_quarto.yml').resolve() == ROOT/'_quarto.yml'

@pytest.mark.parametrize('nb', NBS, **nb_ids)
def test_opens_with_title_and_contract(nb):
    assert re.match(r'# \S.*\n+> \S', cells(nb, 'markdown')[0])

@pytest.mark.parametrize('nb', NBS, **nb_ids)
def test_links_resolve_inside_the_site(nb):
    for target in re.findall(r'\]\(([^)\s#]+)', prose(nb)):
        if re.match(r'\w+:', target): continue
        path = (nb.parent/target).resolve()
        assert path.is_relative_to(ROOT/'nbs') and path.exists(), f'{nb.name}: {target}'

@pytest.mark.parametrize('nb', NBS, **nb_ids)
def test_citations_and_references_are_defined(nb):
    known = set(re.findall(r'^@\w+\{([^,\s]+)', (ROOT/'nbs/references.bib').read_text(encoding='utf-8'), flags=re.M))
    here = re.findall(r'\{#([\w-]+)', prose(nb)) + re.findall(r'^#\|\s*label:\s*([\w-]+)', '\n'.join(cells(nb, 'code')), flags=re.M)
    assert len(here) == len(set(here)), f'{nb.name}: a label is defined twice'
    for key in re.findall(r'(?<![\w@.])@([A-Za-z][\w-]*\w)', prose(nb)):
        assert key in (here if key.split('-')[0] in CROSSREF else known), f'{nb.name}: @{key}'
