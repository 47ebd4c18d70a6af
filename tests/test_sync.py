"The notebooks are the source: what is made from them says what they say today, and they are fit to commit."
import base64, json, re, runpy
from configparser import ConfigParser
import pytest
from conftest import NBS, ROOT, sh

def stale(kept, made, *globs):
    "Names of the files that differ between two folders, or stand in one of them only."
    read = lambda d: {str(o.relative_to(d)): o.read_bytes() for g in globs for o in d.glob(g) if o.is_file()}
    a, b = read(kept), read(made)
    return sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))

def test_package_is_what_the_notebooks_export(checkout):
    for o in checkout.glob('m2vaal_nb/**/*.py'):
        if o.name != '__init__.py': o.unlink()
    sh('nbdev_export', cwd=checkout)
    assert not stale(ROOT, checkout, 'm2vaal_nb/**/*.py'), 'run nbdev_export'

def test_notebooks_are_clean(checkout):
    sh('nbdev_clean', cwd=checkout)
    assert not stale(ROOT/'nbs', checkout/'nbs', *(str(o.relative_to(ROOT/'nbs')) for o in NBS)), 'run nbdev_clean'

def test_readme_is_what_index_says(tmp_path):
    sh('python', ROOT/'tools/readme.py', tmp_path, cwd=ROOT)
    assert not stale(ROOT, tmp_path, 'README.md', 'README_files/*'), 'run make readme'

def test_readme_clones_the_repository_that_settings_name():
    ini = ConfigParser(delimiters=['='])
    ini.read(ROOT/'settings.ini', encoding='utf-8')
    assert f"git clone {ini['DEFAULT']['git_url']}\n" in (ROOT/'README.md').read_text(encoding='utf-8')

PATH = re.compile(r'(?<![\w./-])(/(home|root|tmp|work|Users|private|var/folders)/|[A-Z]:\\Users)[^\s"\'<]*')

@pytest.mark.parametrize('nb', NBS, ids=lambda o: o.stem)
def test_saved_outputs(nb):
    for i,cell in enumerate(json.loads(nb.read_text(encoding='utf-8'))['cells']):
        for o in cell.get('outputs', []):
            where = f'{nb.name}, cell {i}: '
            assert o['output_type'] != 'error', where + 'a traceback'
            assert o.get('name') != 'stderr', where + 'stderr: ' + ''.join(o['text'])
            said = [v for k,v in o.get('data', {'text/plain': o.get('text', '')}).items() if k.startswith('text/')]
            leak = PATH.search(re.sub(r'base64,[\w+/=\s]+', '', ''.join(map(''.join, said))))
            assert not leak, where + f'a path of the machine it ran on: {leak[0]}'

def test_notebooks_are_small():
    assert sum(o.stat().st_size for o in NBS) < 5_000_000

def test_readme_tool(tmp_path):
    "Directives, images, tables and links on a notebook small enough to see the whole result."
    from nbformat import v4, write
    code = lambda source, **data: v4.new_code_cell(source, outputs=[v4.new_output('display_data', {k.replace('_', '/'): v for k,v in data.items()})])
    cells = [v4.new_markdown_cell('# T\n\n::: {.panel}\n[a](00_a.ipynb#b), [c](https://c.d/00_a.ipynb), [l](../LICENSE), [no](x.ipynb)\n:::'),
             code('#| hide\nsecret()', text_plain='secret'),
             code('#| echo: false\n#| fig-alt: "A line."\nplot()', image_png=base64.b64encode(b'PNG').decode(), text_plain='<Figure>'),
             code('#| label: tbl-x\ndf', text_html='<table></table>', text_plain='x'),
             code('md', text_markdown='|a|\n|-|', text_html='<table>')]
    (tmp_path/'nbs').mkdir()
    for name in 'nbs/00_a.ipynb', 'LICENSE': (tmp_path/name).touch()
    write(v4.new_notebook(cells=cells), tmp_path/'nbs/index.ipynb')
    md, images = runpy.run_path(ROOT/'tools/readme.py')['readme'](tmp_path/'nbs/index.ipynb')
    assert images == {'output_1_0.png': b'PNG'}
    assert [o for o in md.splitlines() if o.strip()] == [
        '# T', '[a](nbs/00_a.ipynb#b), [c](https://c.d/00_a.ipynb), [l](LICENSE), [no](x.ipynb)',
        '![A line.](README_files/output_1_0.png)', '```python', 'df', '```', '<table></table>', '```python', 'md', '```', '|a|', '|-|']
