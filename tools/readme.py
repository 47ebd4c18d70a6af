"Write README.md and README_files/ from nbs/index.ipynb, into the folder named or the project's: standard library only, same bytes every time."
import base64, json, re, shutil, sys
from pathlib import Path

def links(md, nbs):
    "Point links to files, written relative to the notebook's folder, at the same files seen from the README's."
    def to_root(m):
        path = (nbs/m[1]).resolve()
        return f']({path.relative_to(nbs.parent).as_posix()}' if path.exists() else m[0]
    return re.sub(r'\]\(([^)\s#:]+)', to_root, md)

def show(output, name, alt, images):
    "One saved output as Markdown; an image is put in `images` under `name`."
    data = {k: ''.join(v) for k,v in output.get('data', {'text/plain': output.get('text')}).items()}
    if 'text/markdown' in data: return data['text/markdown']
    if 'image/png' in data:
        images[name] = base64.b64decode(data['image/png'])
        return f'![{alt}](README_files/{name})'
    if 'text/html' in data:   # GitHub prints a <style> as text, and a blank line would end the table
        return re.sub(r'\n\s*\n', '\n', re.sub(r'<style.*?</style>', '', data['text/html'], flags=re.S))
    return f"```\n{data['text/plain'].rstrip()}\n```"

def readme(nb_path):
    "The README's text, and its images as `{name: bytes}`."
    parts, images = [], {}
    for i,cell in enumerate(json.loads(nb_path.read_text(encoding='utf-8'))['cells']):
        lines = ''.join(cell['source']).splitlines()
        if cell['cell_type'] == 'markdown':
            parts.append(links('\n'.join(o for o in lines if not o.startswith(':::')), nb_path.resolve().parent))
        elif cell['cell_type'] == 'code':
            said = dict(re.match(r'#\|\s*([\w-]*):?\s*(.*)', o).groups() for o in lines if o.startswith('#|'))
            if 'hide' in said: continue
            if said.get('echo') != 'false':
                parts.append('\n'.join(['```python', *(o for o in lines if not o.startswith('#|')), '```']))
            alt = (said.get('fig-alt') or said.get('fig-cap') or 'figure').strip('"')
            parts += [show(o, f'output_{i}_{j}.png', alt, images) for j,o in enumerate(cell['outputs'])]
    return '\n\n'.join(o.strip('\n') for o in parts) + '\n', images

if __name__ == '__main__':
    root = Path(__file__).resolve().parent.parent
    dest = Path(*sys.argv[1:] or [root])
    md, images = readme(root/'nbs/index.ipynb')
    (dest/'README.md').write_text(md, encoding='utf-8')
    shutil.rmtree(dest/'README_files', ignore_errors=True)
    for name,raw in images.items():
        (dest/'README_files').mkdir(exist_ok=True)
        (dest/'README_files'/name).write_bytes(raw)
