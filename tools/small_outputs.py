"""Saves the notebooks' outputs in fewer bytes: large pictures with 128 colours, or, where they are grey, with 32 greys;
tables without the style sheet that pandas puts into each."""
import base64, io, re
from pathlib import Path
from execnb.nbio import read_nb, write_nb
from PIL import Image, ImageChops

LARGE = 5_000 # Bytes
COLOURS, GREYS = 128, 32
STYLE = re.compile(r'<style scoped>.*?</style>\n', re.S)

def is_grey(image)->bool:
    red, green, blue = image.split()
    return not (ImageChops.difference(red, green).getbbox() or ImageChops.difference(green, blue).getbbox())

def small(raw:bytes)->bytes:
    "The same picture; as it was where it is small, transparent, or done already."
    image = Image.open(io.BytesIO(raw))
    whole = image.mode in ('L', 'RGB', 'P') and 'transparency' not in image.info
    opaque = whole or image.mode == 'RGBA' and image.getextrema()[3] == (255, 255)
    if len(raw) < LARGE or not opaque: return raw
    image = image.convert('RGB')
    most = GREYS if is_grey(image) else COLOURS
    if image.getcolors(most): return raw
    image = image.quantize(most, dither=Image.Dither.NONE)
    out = io.BytesIO()
    image.save(out, 'PNG', optimize=True)
    return min(raw, out.getvalue(), key=len)

def shrink(data:dict):
    "Shrink what one output holds, in place."
    if 'image/png' in data:
        raw = base64.b64decode(''.join(data['image/png']))
        if (less := small(raw)) != raw: data['image/png'] = base64.b64encode(less).decode()
    if 'text/html' in data:
        text = ''.join(data['text/html'])
        if (less := STYLE.sub('', text)) != text: data['text/html'] = less.splitlines(True)

for path in sorted(Path('nbs').rglob('*.ipynb')):
    nb = read_nb(path)
    for cell in nb.cells:
        for output in cell.get('outputs', ()): shrink(output.get('data', {}))
    write_nb(nb, path)
