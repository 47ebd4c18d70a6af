"What can be said about the site without Quarto: nbdev's half of the work runs, and links, citations and references hold."
import json, re
from collections import Counter
from pathlib import Path
import pytest, yaml
from conftest import NBS, ROOT, sh

CROSSREF = 'eq fig tbl sec lst thm def exm nte tip wrn imp cau'.split()
nb_ids = dict(ids=lambda o: str(o.relative_to(ROOT/'nbs').with_suffix('')))

def cells(nb, kind): return [''.join(o['source']) for o in json.loads(nb.read_text(encoding='utf-8'))['cells'] if o['cell_type'] == kind]
def prose(nb):
    "All Markdown of `nb`, without code and formulas."
    return re.sub(r'```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$', '', '\n\n'.join(cells(nb, 'markdown')), flags=re.S)

@pytest.fixture(scope='module')
def site(checkout):
    "What nbdev hands to Quarto."
    sh('python', '-c', 'from nbdev.quarto import *; from nbdev.serve import proc_nbs\n'
                       'refresh_quarto_yml(); nbdev_sidebar.__wrapped__(); proc_nbs(n_workers=2)', cwd=checkout)
    return checkout/'_proc'

@pytest.mark.parametrize('nb', NBS, **nb_ids)
def test_nbdev_prepares_every_page(nb, site):
    front = cells(site/nb.relative_to(ROOT/'nbs'), 'raw')
    assert front and yaml.safe_load(front[0].strip('-\n'))['title']

def test_files_that_the_site_names_are_there(site):
    conf = yaml.safe_load((site/'_quarto.yml').read_text())
    web = conf['website']
    for name in (*conf['metadata-files'], conf['bibliography'], conf['format']['html']['css'],
                 web['favicon'], web['open-graph']['image'], web['twitter-card']['image']):
        assert (site/name).is_file(), name

def words(text):
    "The words of some Markdown, without the targets of its links, which nbdev adds and changes."
    return re.findall(r'\w+', re.sub(r'\]\([^)\s]*\)', ']', text))

@pytest.mark.parametrize('nb', NBS, **nb_ids)
def test_no_prose_is_lost_on_the_way_to_the_site(nb, site):
    "nbdev makes front matter of the title cell, title and `>` line: what else stands there it drops."
    page = site/nb.relative_to(ROOT/'nbs')
    shown = words('\n'.join([*cells(page, 'raw'), *cells(page, 'markdown')]))
    there = Counter(shown)
    for text in cells(nb, 'markdown'):
        assert not Counter(words(text)) - there, text[:200]

def shown_definitions(page):
    "What the documentation of a page's definitions prints, as Markdown."
    for c in json.loads(page.read_text(encoding='utf-8'))['cells']:
        for o in c.get('outputs', []):
            if '```python' in (text := ''.join(o.get('data', {}).get('text/markdown', ''))): yield text

@pytest.mark.parametrize('nb', NBS, **nb_ids)
def test_signatures_show_no_raw_links(nb, site):
    "nbdev links backticked names, and a signature is code: there a link is shown as it is written."
    for text in shown_definitions(site/nb.relative_to(ROOT/'nbs')):
        for code in re.findall(r'```python(.*?)```', text, flags=re.S): assert '](http' not in code, code

@pytest.mark.parametrize('nb', NBS, **nb_ids)
def test_docs_stand_in_the_order_of_the_source(nb, site):
    "nbdev shows the last definition of a cell first, and a cell's source in between."
    written = re.findall(r'^(?:async def|def|class) (\w+)', '\n'.join(cells(nb, 'code')), flags=re.M)
    docs, source = [], ''
    for c in json.loads((site/nb.relative_to(ROOT/'nbs')).read_text(encoding='utf-8'))['cells']:
        if found := re.search(r'^show_doc\((\w+)', ''.join(c['source']), flags=re.M):
            docs.append(found[1])
            assert not re.search(rf'^(?:async def|def|class) {found[1]}\b', source, flags=re.M), f'the source of {found[1]} is above its docs'
        elif 'code-fold: show' in ''.join(c['source']): source += ''.join(c['source']) + '\n'
    assert docs == sorted(docs, key=written.index)

@pytest.mark.parametrize('page, names', [('01_models', ['NETS']), ('03_samplers', ['BLOCK']), ('04_loop', ['CHOICES', 'COUNTS', 'WEIGHTS'])])
def test_tables_and_sizes_that_pages_speak_of_are_shown(page, names, site):
    shown = '\n'.join(source for source in cells(site/f'{page}.ipynb', 'code') if 'code-fold: show' in source)
    for name in names: assert re.search(rf'^{name} = ', shown, flags=re.M), name

@pytest.mark.parametrize('nb', NBS, **nb_ids)
def test_no_link_inside_a_link(nb, site):
    for text in cells(site/nb.relative_to(ROOT/'nbs'), 'markdown'):
        assert not re.search(r'\[[^\[\]]*\[[^\]]*\]\([^)]*\)[^\[\]]*\]\(', text), text[:200]

@pytest.mark.parametrize('nb', NBS, **nb_ids)
def test_figures_say_what_they_show(nb):
    "To those who cannot see them: `#| fig-alt`, or the alt text of a Markdown image."
    for i,c in enumerate(json.loads(nb.read_text(encoding='utf-8'))['cells']):
        source = ''.join(c['source'])
        drawn = any(k.startswith('image/') for o in c.get('outputs', []) for k in o.get('data', {}))
        assert not drawn or re.search(r'^#\|\s*fig-alt:\s*"[^"]{20,}"', source, flags=re.M), f'cell {i}'
        if c['cell_type'] == 'markdown': assert not re.search(r'!\[\]\(', source), f'cell {i}'

def visible(formula):
    "About as many characters as a formula shows."
    return re.sub(r'\\(text\w*|mathcal|mathbb|mathrm|frac|tfrac|left|right|big|underbrace|begin\{\w+\}|end\{\w+\}|tag)'
                  r'|[\s{}$&_^]|\\[,;!]', '', re.sub(r'\\(?=(sum|mid|cdot|log|theta|phi|lambda)\b)\w*', '~', formula))

@pytest.mark.parametrize('nb', NBS, **nb_ids)
def test_display_equations_fit_a_phone(nb):
    for text in cells(nb, 'markdown'):
        for formula in re.findall(r'\$\$(.*?)\$\$', text, flags=re.S):
            for line in formula.split('\\\\'): assert len(visible(line)) <= 72, line

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

def workflow(name):
    "A workflow's triggers and jobs. YAML takes the word `on` for a truth value."
    found = yaml.safe_load((ROOT/f'.github/workflows/{name}.yaml').read_text(encoding='utf-8'))
    return found['name'], found[True], found['jobs']

def test_the_site_waits_for_the_tests_and_comes_from_main():
    _, when, jobs = workflow('deploy')
    tests, of, _ = workflow('test')
    assert when == dict(workflow_run=dict(workflows=[tests], types=['completed'], branches=['main'])) and 'push' in of
    for needs in "conclusion == 'success'", "event != 'pull_request'", 'head_sha == github.sha': assert f'github.event.workflow_run.{needs}' in jobs['site']['if']
