"Pixels keep their meaning, whatever file they come in: no kind of it becomes black or white, for a net or for a person."
import struct, zlib
import numpy as np
import pytest
from PIL import Image, ImageFile
from m2vaal_nb.own_images import pixels
from m2vaal_nb.own_images.images import read_image, read_images, see_images, notes_on
from m2vaal_nb.own_images.pixels import Scales, decoding, opened, read_picture

RAMP = np.arange(256).reshape(16, 16)
RGB = np.dstack([RAMP, RAMP.T, RAMP[::-1]])
GLYPH = np.zeros((16, 16), bool)
GLYPH[4:12, 4:12] = True

# --- files as other programs write them ---
def pil(a, mode=None, **how):
    def write(path):
        img = Image.fromarray(a)
        (img.convert(mode) if mode else img).save(path, **how)
    return write

def png(a, colours, **chunks):
    "PNG with 16 bits; `colours` is its colour type."
    def chunk(name, raw): return struct.pack('>I', len(raw)) + name + raw + struct.pack('>I', zlib.crc32(name + raw))
    def write(path):
        header = struct.pack('>IIBBBBB', a.shape[1], a.shape[0], 16, colours, 0, 0, 0)
        rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in a)
        more = b''.join(chunk(k.encode(), v) for k,v in chunks.items())
        path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + more + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))
    return write

def tiff(a, bits, sample=1, photometric=1, raw=None, big=False):
    "Uncompressed TIFF; `sample` is 1 for numbers without a sign, 2 with one, 3 for floats."
    end, n, data = '>' if big else '<', a.shape[2] if a.ndim == 3 else 1, raw or a.tobytes()
    def write(path):
        tags = {256: a.shape[1], 257: a.shape[0], 258: bits, 259: 1, 262: photometric, 273: 8, 277: n, 278: a.shape[0], 279: len(data), 339: sample}
        at, entries, tail = 8 + len(data), b'', b''
        for tag,v in sorted(tags.items()):
            if n > 1 and tag in (258, 339):
                entries += struct.pack(end + 'HHII', tag, 3, n, at + 6 + 12*len(tags) + len(tail))
                tail += struct.pack(f'{end}{n}H', *[v]*n)
            else: entries += struct.pack(end + 'HHI', tag, 4, 1) + struct.pack(end + 'I', v)
        head = (b'MM\0*' if big else b'II*\0') + struct.pack(end + 'I', at)
        path.write_bytes(head + data + struct.pack(end + 'H', len(tags)) + entries + struct.pack(end + 'I', 0) + tail)
    return write

def packed_12(a):
    pairs = a.reshape(-1, 2).astype(int).tolist()
    return b''.join(bytes([x >> 4, (x & 15) << 4 | y >> 8, y & 255]) for x,y in pairs)

def glyph(colour, mode, under=(0, 0, 0), **how):
    "A square of a colour on a transparent page."
    a = np.zeros((16, 16, 4), np.uint8)
    a[..., :3] = under
    a[GLYPH] = *colour, 255
    return pil(a, mode, **how)

def with_key(a, key, **how): return pil(a, None, transparency=key, **how)

halves = np.float32(RAMP)/255
with_holes = halves.copy()
with_holes[0] = np.nan
with_holes[1] = np.inf

KINDS = { # what it is: (name, how it is written, channels, least number of greys)
    '8 bits': ('a.png', pil(RAMP.astype('u1')), 1, 256),
    '16 bits': ('a.png', pil((257*RAMP).astype('u2')), 1, 256),
    '12 bits in 16, PNG': ('a.png', pil((16*RAMP).astype('u2')), 1, 250),
    '12 bits in 16, TIFF': ('a.tif', pil((16*RAMP).astype('u2')), 1, 250),
    '12 bits in 16, compressed': ('a.tif', pil((16*RAMP).astype('u2'), compression='tiff_lzw'), 1, 250),
    '12 bits in 16, big-endian': ('a.tif', tiff((16*RAMP).astype('>u2'), 16, big=True), 1, 250),
    '12 bits, packed': ('a.tif', tiff(RAMP, 12, raw=packed_12(16*RAMP)), 1, 250),
    '10 bits in 16': ('a.png', pil((4*RAMP).astype('u2')), 1, 250),
    '14 bits in 16': ('a.png', pil((64*RAMP).astype('u2')), 1, 250),
    '8 bits in 16': ('a.png', pil(RAMP.astype('u2')), 1, 256),
    '8 bits in 32': ('a.tif', pil(RAMP.astype('i4')), 1, 256),
    '1 bit in 16': ('a.png', pil(GLYPH.astype('u2')), 1, 2),
    '1 bit': ('a.png', pil(GLYPH), 1, 2),
    '1 bit, TIFF': ('a.tif', pil(GLYPH), 1, 2),
    '1 bit, BMP': ('a.bmp', pil(GLYPH), 1, 2),
    '16 bits with a sign': ('a.tif', tiff((100*RAMP - 9000).astype('<i2'), 16, 2), 1, 256),
    '32 bits with a sign': ('a.tif', tiff((10**6*RAMP - 10**8).astype('<i4'), 32, 2), 1, 256),
    '32 bits without a sign': ('a.tif', tiff((16_800_000*RAMP).astype('<u4'), 32), 1, 250),
    '32 bits, big-endian': ('a.tif', tiff((10**6*RAMP).astype('>i4'), 32, 2, big=True), 1, 240),
    '20 of 32 bits': ('a.tif', pil((4000*RAMP).astype('i4')), 1, 240),
    'fractions': ('a.tif', pil(halves), 1, 256),
    'fractions, big-endian': ('a.tif', tiff(halves.astype('>f4'), 32, 3, big=True), 1, 256),
    'fractions up to a half': ('a.tif', pil(halves/2), 1, 120),
    'fractions from -1 to 1': ('a.tif', pil(2*halves - 1), 1, 256),
    'floats that are 8 bits': ('a.tif', pil(np.float32(RAMP)), 1, 256),
    'floats that are 12 bits': ('a.tif', pil(np.float32(16*RAMP)), 1, 250),
    'floats in other units': ('a.tif', pil(273.15 + halves), 1, 250),
    'fractions with holes': ('a.tif', pil(with_holes), 1, 224),
    '12 bits in 16, in colour, PNG': ('a.png', png(16*RGB, 2), 3, 16),
    '12 bits in 16, in colour, TIFF': ('a.tif', tiff((16*RGB).astype('<u2'), 16, photometric=2), 3, 16),
    '12 bits in 16, colour and alpha': ('a.png', png(np.dstack([16*RGB, 65535 + 0*RAMP]), 6), 3, 16),
    '12 bits in 16, grey and alpha': ('a.png', png(np.dstack([16*RAMP, 65535 + 0*RAMP]), 4), 1, 16),
    '16 bits in colour': ('a.png', png(257*RGB, 2), 3, 256),
    '16 bits of inks': ('a.tif', tiff((4000*np.dstack([GLYPH]*3 + [0*RAMP])).astype('<u2'), 16, photometric=5), 3, 2),
    'a key of 16 bits': ('a.png', png(16*RAMP, 0, tRNS=b'\0\x10'), 1, 250),
    'black on transparent': ('a.png', glyph((0, 0, 0), None), 3, 2),
    'white on transparent': ('a.png', glyph((255, 255, 255), None, (255, 255, 255)), 3, 2),
    'white on transparent black': ('a.png', glyph((255, 255, 255), None), 3, 2),
    'yellow on transparent': ('a.png', glyph((255, 255, 0), None), 3, 2),
    'grey on transparent': ('a.png', glyph((128, 128, 128), None), 3, 2),
    'black on transparent, grey': ('a.png', glyph((0, 0, 0), 'LA'), 1, 2),
    'white on transparent, grey': ('a.png', glyph((255, 255, 255), 'LA', (255, 255, 255)), 1, 2),
    'black on transparent, TIFF': ('a.tif', glyph((0, 0, 0), None), 3, 2),
    'black on transparent, WebP': ('a.webp', glyph((0, 0, 0), None, lossless=True, exact=True), 3, 2),
    'black on transparent, GIF': ('a.gif', glyph((0, 0, 0), None), 3, 2),
    'a palette with a key': ('a.png', with_key(np.where(GLYPH, 0, 255).astype('u1'), 255), 1, 2),
    'a colour as key': ('a.png', with_key(np.where(GLYPH[..., None], 0, [9, 0, 0]).astype('u1'), (9, 0, 0)), 3, 2),
    'all transparent, with a picture under it': ('a.png', pil(np.dstack([RGB, 0*RAMP]).astype('u1')), 3, 256),
    'a palette': ('a.gif', pil(RGB.astype('u1'), 'P'), 3, 6),
    'inks, JPEG': ('a.jpg', pil(RGB.astype('u1'), 'CMYK'), 3, 100),
    'inks, TIFF': ('a.tif', pil(RGB.astype('u1'), 'CMYK'), 3, 200),
    'YCbCr': ('a.tif', pil(RGB.astype('u1'), 'YCbCr'), 3, 200),
}

def greys(img):
    "The most values that a channel has."
    return max(len(np.unique(np.asarray(c))) for c in img.split())

@pytest.mark.parametrize('what', KINDS)
def test_kind(what, tmp_path):
    name, write, channels, least = KINDS[what]
    write(tmp_path/name)
    img = read_picture(tmp_path/name)
    assert greys(img) >= least and img.getextrema() != (0, 0)
    assert greys(read_image(tmp_path/name, 1)) >= min(least, 2)
    x = read_images(tmp_path, [name])
    assert x.shape[1] == (3 if what == '12 bits in 16, grey and alpha' else channels)     # Pillow opens it in colour
    assert int(x.max()) - int(x.min()) > 100

def ramp_of(path): return np.asarray(read_picture(path)).astype(int)

@pytest.mark.parametrize('what', [k for k,v in KINDS.items() if v[2] == 1 and v[3] >= 240])
def test_dark_stays_dark(what, tmp_path):
    name, write, *_ = KINDS[what]
    write(tmp_path/name)
    rows = ramp_of(tmp_path/name).mean(1)
    assert (np.diff(rows) > 0).all() and rows[0] < 20 and rows[-1] > 110

@pytest.mark.parametrize('bits,a', [(8, RAMP.astype('u1')), (16, (257*RAMP).astype('<u2'))])
def test_white_may_be_zero(bits, a, tmp_path):
    tiff(a, bits, photometric=0)(tmp_path/'a.tif')
    assert (ramp_of(tmp_path/'a.tif') == RAMP[::-1, ::-1]).all()

# --- a folder ---
def test_one_folder_one_range(tmp_path):
    "A dark image of a folder stays darker than its bright ones; alone it is what its file holds."
    for name,a in (('dark.png', RAMP), ('bright.png', 16*RAMP)): pil(a.astype('u2'))(tmp_path/name)
    pil(np.float32(RAMP)/255)(tmp_path/'other.tif')
    x = read_images(tmp_path, ['bright.png', 'dark.png', 'other.tif'])
    assert x.amax((1, 2, 3)).tolist() == [254, 16, 255]
    assert read_picture(tmp_path/'dark.png').getextrema() == (0, 255)
    assert read_picture(tmp_path/'dark.png', Scales(tmp_path.iterdir())).getextrema() == (0, 16)
    said = list(notes_on(see_images(tmp_path, ['bright.png', 'dark.png', 'other.tif'])))
    assert said == ['Where pixels are 16 bits, 0 is black and 4,095 is white.', 'Where pixels are fractions, 0 is black and 1 is white.']

def test_nothing_is_looked_for_in_plain_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, 'extent', None)
    pil(RGB.astype('u1'))(tmp_path/'a.png')
    glyph((0, 0, 0), None)(tmp_path/'b.png')
    tiff(RAMP, 12, raw=packed_12(16*RAMP))(tmp_path/'c.tif')     # declares its bits
    assert len(read_images(tmp_path, ['a.png', 'b.png', 'c.tif'])) == 3

def test_the_range_skips_what_is_broken(tmp_path):
    pil((16*RAMP).astype('u2'))(tmp_path/'a.tif')
    (tmp_path/'b.tif').write_bytes((tmp_path/'a.tif').read_bytes()[:300])
    (tmp_path/'c.tif').write_bytes(b'')
    assert Scales(sorted(tmp_path.iterdir()))['16 bits'] == (0, 4095)

NOTES = { # what a folder holds: (how one of its files is written, what is said)
    'nothing odd': ('a.png', pil(RAMP.astype('u1')), None),
    'one colour': ('a.png', pil(np.full((16, 16, 3), [9, 200, 9], 'u1')), 'of one colour, or nearly (a.png)'),
    'nearly one colour': ('a.png', pil((RAMP//17).astype('u1')), 'of one colour, or nearly (a.png)'),
    'just enough to see': ('a.png', pil((RAMP//15).astype('u1')), None),
    'a mask of 0 and 1': ('a.png', pil(GLYPH.astype('u1')), 'of one colour, or nearly (a.png)'),
    'nothing but numbers that are none': ('a.tif', pil(np.full((16, 16), np.nan, 'f4')), 'of one colour, or nearly (a.tif)'),
    'one number of 16 bits': ('a.png', pil(np.full((16, 16), 40_000, 'u2')), 'of one colour, or nearly (a.png)'),
    'an empty page': ('a.png', pil(np.zeros((16, 16, 4), 'u1')), 'of one colour, or nearly (a.png)'),
    'several pictures, GIF': ('a.gif', pil(RAMP.astype('u1'), save_all=True, append_images=[Image.new('L', (16, 16))]), 'hold several pictures: the first is taken (a.gif)'),
    'several pictures, TIFF': ('a.tif', pil(RAMP.astype('u1'), save_all=True, append_images=[Image.new('L', (9, 9))]), 'hold several pictures: the first is taken (a.tif)'),
    'something transparent': ('a.png', glyph((0, 0, 0), None), 'may be transparent'),
}

@pytest.mark.parametrize('what', NOTES)
def test_note(what, tmp_path):
    name, write, says = NOTES[what]
    pil(RAMP.astype('u1'))(tmp_path/'plain.png')
    write(tmp_path/name)
    notes = [o for o in notes_on(see_images(tmp_path, [name, 'plain.png'])) if not o.startswith('Where pixels')]
    assert not notes if says is None else any(o.startswith('1 of 2 images') and says in o for o in notes)

@pytest.mark.parametrize('name,a,how', [
    ('a.jpg', RAMP[:8].astype('u1'), {}), ('a.webp', RAMP[:8].astype('u1'), dict(lossless=True)),
    ('a.png', RAMP[:8].astype('u1'), {}), ('b.png', (257*RAMP[:8]).astype('u2'), {}),
    ('a.tif', RAMP[:8].astype('u1'), {}), ('b.tif', (257*RAMP[:8]).astype('u2'), {}), ('c.tif', np.float32(RAMP[:8])/255, {}),
    ('d.tif', RAMP[:8].astype('u1'), dict(compression='tiff_lzw')), ('e.tif', (257*RAMP[:8]).astype('u2'), dict(compression='tiff_lzw'))])
def test_turned_as_the_camera_was(name, a, how, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pil(a, **how, **(dict(tiffinfo={274: 6}) if name.endswith('.tif') else dict(exif=exif)))(tmp_path/name)
    x = ramp_of(tmp_path/name).reshape(16, 8, -1)[..., 0]
    high = 127 if a.dtype != np.uint16 else 255     # 15 bits hold the largest
    assert np.abs(x*127/high - np.rot90(RAMP[:8], -1)).max() < (9 if name == 'a.jpg' else 2)

@pytest.mark.parametrize('mode', ['L', 'RGB', 'CMYK'])
def test_a_large_jpeg_may_be_read_at_a_fraction(mode, tmp_path):
    pil(np.tile(RGB, (64, 64, 1)).astype('u1'), mode)(tmp_path/'a.jpg')
    whole, part = read_picture(tmp_path/'a.jpg'), read_picture(tmp_path/'a.jpg', side=100)
    assert whole.mode == part.mode == ('L' if mode == 'L' else 'RGB') and min(part.size) >= 100
    assert part.size == (128, 128)
    assert abs(np.asarray(whole).mean() - np.asarray(part).mean()) < 2

def test_damaged_exif_is_passed_over(tmp_path):
    pil(RAMP.astype('u1'), exif=b'Exif\0\0MM\0*\0\0\0\x08\0\x09garbage')(tmp_path/'a.jpg')
    pil(RAMP.astype('u1'), exif=b'Exif\0\0nonsense')(tmp_path/'b.jpg')
    assert len(read_images(tmp_path, ['a.jpg', 'b.jpg'])) == 2

BAD = { # what a file holds: (its name, its bytes or how it is written, what is said of it)
    'nothing': ('b.png', b'', 'empty'),
    'a page': ('b.jpg', b'<!DOCTYPE html><html>', 'HTML or XML'),
    'a page after blank lines': ('b.jpg', b'\n\n  <html>', 'HTML or XML'),
    'a drawing': ('b.png', b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'HTML or XML'),
    'an answer in JSON': ('b.png', b'{"error": "not found"}', 'no image'),
    'HEIC': ('b.heic', b'\0\0\0\x18ftypheic\0\0\0\0mif1heic', 'HEIC, for which there is no reader'),
    'HEIC with another brand': ('b.heif', b'\0\0\0\x18ftypmif1\0\0\0\0', 'HEIC, for which there is no reader'),
    'HEIC called JPEG': ('b.jpg', b'\0\0\0\x18ftypheic\0\0\0\0mif1heic', 'HEIC, for which there is no reader'),
    'a placeholder': ('b.png', b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'a placeholder of Git LFS'),
    'a PDF': ('b.png', b'%PDF-1.7', 'a PDF'),
    'an archive': ('b.png', b'PK\x03\x04', 'a ZIP archive'),
    'a PNG that ends after its name': ('b.png', b'\x89PNG\r\n\x1a\n', 'no image'),
    'fractions of 64 bits': ('b.tif', tiff(RAMP/255, 64, 3), 'a TIFF of a kind for which there is no reader'),
    'fractions in colour': ('b.tif', tiff(np.float32(RGB)/255, 32, 3, photometric=2), 'a TIFF of a kind for which there is no reader'),
    'five channels': ('b.tif', tiff(np.dstack([RAMP]*5).astype('u1'), 8), 'a TIFF of a kind for which there is no reader'),
    'half a JPEG': ('b.jpg', lambda p: cut(p, pil(RGB.astype('u1'))), 'damaged'),
    'half a TIFF': ('b.tif', lambda p: cut(p, pil(RGB.astype('u1'))), 'damaged'),
    'half a BMP': ('b.bmp', lambda p: cut(p, pil(RGB.astype('u1'))), 'damaged'),
    'half a PNG of 16 bits': ('b.png', lambda p: cut(p, pil(np.random.default_rng(0).integers(4096, size=(64, 64)).astype('u2'))), 'damaged'),
    'too many pixels': ('b.png', pil(np.zeros((40, 40), 'u1')), 'more than 1,000 pixels'),
}

def cut(path, write):
    write(path)
    path.write_bytes(path.read_bytes()[:path.stat().st_size//2])

@pytest.mark.parametrize('what', BAD)
def test_bad_file(what, tmp_path, monkeypatch):
    name, write, says = BAD[what]
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 500 if what == 'too many pixels' else 10_000)
    pil(RAMP.astype('u1'))(tmp_path/'a.png')
    write(tmp_path/name) if callable(write) else (tmp_path/name).write_bytes(write)
    with pytest.raises(ValueError, match='could not be read as an image'): read_picture(tmp_path/name)
    found = f'1 of 2 images could not be read: {name} ({says})'
    with pytest.raises(ValueError) as e: see_images(tmp_path, ['a.png', name])
    assert str(e.value) == f'{found}; remove them, or leave them out with --skip-bad.'
    with pytest.raises(ValueError) as e: read_images(tmp_path, ['a.png', name])       # who calls it cannot leave them out
    assert str(e.value) == f'{found}; remove them from the folder.'
    seen = see_images(tmp_path, ['a.png', name], skip_bad=True)
    assert list(seen.headers) == ['a.png'] and seen.bad == {name: says} and len(seen.x_N) == 1

def test_all_bad_files_are_named_at_once(tmp_path):
    for i in range(12): (tmp_path/f'{i:02}.png').write_bytes(b'' if i % 2 else b'<html>')
    cut(tmp_path/'12.jpg', pil(RGB.astype('u1')))     # its header is fine
    pil(RAMP.astype('u1'))(tmp_path/'13.png')
    paths = sorted(o.name for o in tmp_path.iterdir())
    with pytest.raises(ValueError) as e: read_images(tmp_path, paths)
    assert '13 of 14 images' in str(e.value) and '09.png (empty), 3 more; remove' in str(e.value) and '10.png' not in str(e.value)
    with pytest.raises(ValueError, match='none is left'): see_images(tmp_path, paths[:13], skip_bad=True)

def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refused(*_): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(pixels, 'open', refused, raising=False)
    with pytest.raises(ValueError, match='a.png could not be read as an image: permission denied'): read_picture('a.png')

def test_no_handle_is_left_open(tmp_path, recwarn):
    import gc
    cut(tmp_path/'b.tif', pil(RGB.astype('u1')))
    for _ in range(3):
        with pytest.raises(ValueError): read_picture(tmp_path/'b.tif')
    gc.collect()
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning)]

# --- whose fault it is ---
LACKS = MemoryError(), OSError(24, 'Too many open files'), OSError(12, 'Cannot allocate memory'), OSError(5, 'Input/output error'), AttributeError('has_transparency_data')

@pytest.mark.parametrize('where, error', [(where, error) for where in ('opening', 'the header', 'the pixels', 'black and white', 'turning')
    for error in LACKS[:1 if where == 'turning' else None]], ids=repr)      # damaged EXIF raises anything
def test_what_the_machine_lacks_is_no_fault_of_an_image(where, error, tmp_path, monkeypatch):
    "Nor is a mistake of ours; no good image is left out for either, and nothing is said of one."
    for name in 'a.tif', 'b.tif': pil((16*RAMP).astype('u2'))(tmp_path/name)
    def fail(*_, **__): raise error
    of, name = {'opening': (Image, 'open'), 'the header': (pixels, 'image_header'), 'the pixels': (ImageFile.ImageFile, 'load'),
        'black and white': (pixels, 'numbers'), 'turning': (pixels.ImageOps, 'exif_transpose')}[where]
    monkeypatch.setattr(of, name, fail)
    with pytest.raises(type(error)): read_picture(tmp_path/'a.tif')
    with pytest.raises(type(error)) as e: see_images(tmp_path, ['a.tif', 'b.tif'], skip_bad=True)
    assert e.value is error

@pytest.mark.parametrize('error', [*LACKS, ZeroDivisionError(), ValueError('mine'), KeyError('mine'), OSError('mine')], ids=repr)
def test_who_opens_an_image_hears_of_their_own_mistakes(error, tmp_path):
    pil(RAMP.astype('u1'))(tmp_path/'a.png')
    with pytest.raises(type(error)) as e, opened(tmp_path/'a.png'): raise error
    assert e.value is error

@pytest.mark.parametrize('error, says', [(FileNotFoundError(2, 'x'), 'no such file or directory'), (PermissionError(13, 'x'), 'no image'),
    (OSError('broken data stream'), 'damaged'), (SyntaxError('x'), 'damaged'), (struct.error('x'), 'damaged'), (zlib.error('x'), 'damaged')], ids=repr)
def test_what_decoders_say(error, says, tmp_path):
    path = tmp_path/'a.png'
    if says == 'no image': path.write_bytes(b'nothing')
    with pytest.raises(pixels.Unreadable, match=says), decoding(path): raise error

@pytest.mark.parametrize('name, how', [('a.png', {}), ('a.jpg', {}), ('a.gif', dict(save_all=True, append_images=[Image.new('RGB', (9, 9))])), ('a.webp', {}), ('a.bmp', {}),
    ('a.tif', dict(compression='tiff_lzw')), ('b.tif', dict(save_all=True, append_images=[Image.new('RGB', (9, 9))])), ('c.tif', dict(compression='tiff_deflate'))])
def test_whatever_is_broken_in_a_file_it_is_one_sentence(name, how, tmp_path):
    "Bytes that are other ones, in the beginning above all, and files that end too early."
    g, path = np.random.default_rng(0), tmp_path/name
    pil(RGB.astype('u1'), **how)(path)
    whole, bad = path.read_bytes(), 0
    for _ in range(150):
        raw = bytearray(whole[:g.integers(1, len(whole))] if g.random() < .3 else whole)
        for at in g.integers(min(len(raw), 200) if g.random() < .5 else len(raw), size=g.choice([1, 5, 20])): raw[at] = g.integers(256)
        path.write_bytes(raw)
        try: read_picture(path)
        except pixels.Unreadable: bad += 1
    assert bad > 20
