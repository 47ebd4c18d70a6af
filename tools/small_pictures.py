"Saves large pictures of the notebooks in fewer bytes: grey ones as grey, which loses nothing, others with 256 colours."
import base64, io, json
from pathlib import Path
from PIL import Image, ImageChops

LARGE = 20_000 # Bytes

def is_grey(image)->bool:
    red, green, blue = image.split()
    return not (ImageChops.difference(red, green).getbbox() or ImageChops.difference(green, blue).getbbox())

def small(raw:bytes)->bytes:
    "The same picture; as it was where it is small, transparent, or done already."
    image = Image.open(io.BytesIO(raw))
    opaque = image.mode == 'RGB' or image.mode == 'RGBA' and image.getextrema()[3] == (255, 255)
    if len(raw) < LARGE or not opaque: return raw
    image = image.convert('RGB')
    image = image.convert('L') if is_grey(image) else image.quantize(256, dither=Image.Dither.NONE)
    out = io.BytesIO()
    image.save(out, 'PNG', optimize=True)
    return min(raw, out.getvalue(), key=len)

for path in sorted(Path('nbs').rglob('*.ipynb')):
    text = was = path.read_text(encoding='utf-8')
    for cell in json.loads(text)['cells']:
        for output in cell.get('outputs', ()):
            held = ''.join(output.get('data', {}).get('image/png', ''))
            raw = base64.b64decode(held)
            if held and (less := small(raw)) != raw:
                text = text.replace(json.dumps(held)[1:-1], base64.b64encode(less).decode())
    if text != was: path.write_text(text, encoding='utf-8')
