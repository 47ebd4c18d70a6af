"Write README.md and README_files/ from nbs/index.ipynb with nbconvert, into the folder named or the project's."
import re, shutil, sys
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

CONFIG = Config(TagRemovePreprocessor=dict(enabled=True, remove_input_tags=['echo']),
                NbConvertBase=dict(display_data_priority=['text/markdown', 'image/png', 'text/html', 'text/plain']))

def from_root(text, nbs):
    "Links as seen from the README."
    def to_root(m):
        path = (nbs/m[1]).resolve()
        return f']({path.relative_to(nbs.parent).as_posix()}' if path.exists() else m[0]
    return re.sub(r'\]\(([^)\s#:]+)', to_root, text)

def prepare(cell, nbs):
    "Quarto's directives as tags that nbconvert knows, links as seen from the README; returns the figure's alt text."
    said = dict(re.findall(r'^#\|\s*([\w-]+):?[ \t]*(.*)\n?', cell.source, flags=re.M))
    if cell.cell_type == 'code':
        cell.metadata.tags = ['echo'] if said.get('echo') == 'false' else []
        cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M)
        for o in cell.outputs:
            if text := o.get('data', {}).get('text/markdown'): o.data['text/markdown'] = from_root(text, nbs)
    else: cell.source = from_root(re.sub(r'^:::.*\n?', '', cell.source, flags=re.M), nbs)
    return said.get('fig-alt', 'figure').strip('"')

def readme(nb_path):
    "The README's text, and its images as `{name: bytes}`."
    nb = nbformat.read(nb_path, as_version=4)
    nb.cells = [c for c in nb.cells if not re.match(r'#\|\s*hide\b', c.source)]
    nb.metadata.language_info = dict(name='python')   # nbdev_clean took it
    alts = {f'output_{i}_': prepare(cell, nb_path.resolve().parent) for i,cell in enumerate(nb.cells)}
    body, resources = MarkdownExporter(config=CONFIG).from_notebook_node(nb, dict(output_files_dir='README_files'))
    for start,alt in alts.items(): body = re.sub(rf'!\[\w+\]\((README_files/{start}\d+\.png)\)', lambda m: f'![{alt}]({m[1]})', body)
    return re.sub(r'\n\s*\n(?! )', '\n\n', body).strip() + '\n', {Path(k).name: v for k,v in resources['outputs'].items()}

if __name__ == '__main__':
    root = Path(__file__).resolve().parent.parent
    dest = Path(*sys.argv[1:] or [root])
    md, images = readme(root/'nbs/index.ipynb')
    (dest/'README.md').write_text(md, encoding='utf-8')
    shutil.rmtree(dest/'README_files', ignore_errors=True)
    for name,raw in images.items():
        (dest/'README_files').mkdir(exist_ok=True)
        (dest/'README_files'/name).write_bytes(raw)
