"Names that people think equal do not split or vanish: classes, images, columns, whatever program wrote them."
import os, sys, unicodedata
from itertools import product
import numpy as np, pandas as pd, pytest
from conftest import ROOT, sh
from m2vaal_nb.foundations.names import is_slip, like_name, loose_name, match_paths, normal_name
from m2vaal_nb.own_images.files import as_classes, image_paths, read_text, split_names
from m2vaal_nb.own_images.labels import as_meant, csv_labels, is_made, is_misread, read_labels

def nfd(s): return unicodedata.normalize('NFD', s)
KAESE = 'Käse'

SAME = { # what differs, though nobody sees it: (one form, the other)
    'composed or not': (KAESE, nfd(KAESE)), 'Hangul': ('한글', nfd('한글')), 'two accents': ('ế', 'e\u0302\u0301'),
    'an Ångström sign': ('\u212b', 'Å'), 'blanks around': ('cat', ' cat\t'), 'two blanks': ('hen & co', 'hen  & co'),
    'a blank that does not break': ('hen & co', 'hen\xa0&\u202fco'), 'a byte order mark': ('cat', '\ufeffcat'),
    'zero width': ('cat', 'c\u200bat\u2060'), 'a soft hyphen': ('cat', 'ca\u00adt'), 'marks of direction': ('cat', '\u200ecat\u202c'),
    'a joiner at the end': ('cat', 'cat\u200d'), 'a line end': ('cat', 'cat\r\n'), 'the blank of Japanese': ('a b', 'a\u3000b'),
    'an accent after zero width': (KAESE, 'Ka\u200b\u0308se')}

@pytest.mark.parametrize('what', SAME)
def test_the_same_name(what):
    one, other = map(normal_name, SAME[what])
    assert one == other == normal_name(one) and like_name(other, ['x', one]) == one

LIKE = { # what differs and is seen: (one name, the other)
    'case': ('Bag', 'bag'), 'all capitals': ('straße', 'STRASSE'), 'width': ('Bag', 'Ｂａｇ'), 'a joint': ('hen_co', 'Hen-co'), 'a blank': ('T-shirt', 't shirt'),
    'a number of pandas': ('1', '1.0'), 'a number in German': ('1', '1,00'), 'zeros in front': ('7', '007'), 'a ligature': ('fish', 'ﬁsh'),
    'a wrong encoding': (KAESE, KAESE.encode().decode('cp1252')), 'the same, not composed': (KAESE, nfd(KAESE).encode().decode('cp1252'))}

@pytest.mark.parametrize('what', LIKE)
def test_a_name_that_is_like_another(what):
    one, other = LIKE[what]
    assert normal_name(one) != normal_name(other) and loose_name(one) == loose_name(other)
    assert like_name(other, ['xyz', one, 'x']) == one

@pytest.mark.parametrize('one,other', [
    ('1', '-1'), ('1.5', '1'), ('10', '1'), ('C', 'C++'), ('+', '-'), ('a/b', 'ab'), ('Kase', KAESE), ('1-2', '12'),
    ('نامه\u200cای', 'نامهای'), ('👩\u200d🔬', '👩🔬')])
def test_names_that_stay_apart(one, other):
    assert loose_name(one) != loose_name(other) and normal_name(one) != normal_name(other)

def test_any_names_are_taken():
    for names in ([], '', [''], ['x', '_', '-', ' ', '\u200b', '\ufffd']): assert like_name('cat', names) in (None, *names)
    assert like_name('', ['cat']) is None

# --- images ---
TREE = ['a.png', 'b 1.png', 'cats/a.png', 'cats/Käse.png', 'IMG_0000.PNG', '100%.png']

MATCH = { # how images are called: (the references, the paths or what the sentence says)
    'as they are': (TREE, TREE),
    'a dot and a slash': (['./a.png', './cats/a.png'], ['a.png', 'cats/a.png']),
    'backslashes': ([r'cats\a.png', r'.\b 1.png'], ['cats/a.png', 'b 1.png']),
    'two slashes': (['cats//a.png'], ['cats/a.png']),
    'the folder before': (['photos/a.png', 'photos/cats/a.png'], ['a.png', 'cats/a.png']),
    'a path on a disk': (['/home/me/photos/b 1.png'], ['b 1.png']),
    'a path on Windows': ([r'C:\me\photos\cats\Käse.png'], ['cats/Käse.png']),
    'a share': ([r'\\server\photos\b 1.png'], ['b 1.png']),
    'a path of the file system': (['file:///home/me/b%201.png'], ['b 1.png']),
    'a path from elsewhere': (['../photos/b 1.png'], ['b 1.png']),
    'a path from home': (['~/photos/b 1.png'], ['b 1.png']),
    'not composed': ([nfd('cats/Käse.png')], ['cats/Käse.png']),
    'blanks around': ([' a.png ', 'b  1.png'], ['a.png', 'b 1.png']),
    'a mark in front': (['\ufeffa.png'], ['a.png']),
    'an encoded blank': (['b%201.png'], ['b 1.png']),
    'a percent sign': (['100%.png'], ['100%.png']),
    'one from a root': (['a.png', '/photos/b 1.png'], ['a.png', 'b 1.png']),
    'no reference': ([], []),
    'another case': (['img_0000.png'], 'The folder has no image img_0000.png: did you mean IMG_0000.PNG?'),
    'another case of the folder': (['Cats/a.png', 'a.png'], 'did you mean cats/a.png?'),
    'another suffix': (['IMG_0000.jpg'], 'did you mean IMG_0000.PNG?'),
    'no suffix': (['b 1'], 'did you mean b 1.png?'),
    'a wrong encoding': (['cats/KÃ¤se.png'], 'did you mean cats/Käse.png?'),
    'something else': (['x.jpeg', 'y', 'z'], r'no image x.jpeg \(nor 2 others\): its 6 images have other names, such as a.png'),
    'one other': (['x.jpeg', 'y'], r'no image x.jpeg \(nor 1 other\): its 6 images'),
    'another folder, where others have none': (['b 1.png', 'old/a.png'], 'no image old/a.png: did you mean a.png?'),
    'two ends': (['/photos/cats/a.png'], 'may be a.png or cats/a.png: name it by its path in the folder'),
    'two beginnings': (['x/b 1.png', 'y/b 1.png'], 'Both x/b 1.png and y/b 1.png may be b 1.png')}

@pytest.mark.parametrize('what', MATCH)
def test_which_image_is_meant(what):
    references, meant = MATCH[what]
    if isinstance(meant, list): assert match_paths(references, TREE) == dict(zip(references, meant))
    else:
        with pytest.raises(ValueError, match=meant) as e: match_paths(references, TREE)
        assert '\n' not in str(e.value)

def test_every_odd_name_of_a_file_is_found_by_itself():
    names = ['a%20b.png', 'a b.png', ' blank.png', 'blank.png', '20 #.png', 'what?.png', 'back\\slash.png', 'x://y.png']
    names += [f'{KAESE}.png', nfd(f'{KAESE}.png'), 'upload/3f2a9c1b-a.png', 'a.png', 'A.png', 'ａ.png']
    assert match_paths(names, names) == dict(zip(names, names))
    for name in names[:2] + names[4:]: assert match_paths([name], names) == {name: name}

@pytest.mark.parametrize('before', ['', './', 'photos/', '/my/photos/', 'https://my.org/', 'C:\\photos\\', 'C:\\\\photos\\\\'])
def test_no_image_is_taken_for_another(before):
    "Whichever of them are named after a prefix, each is found or the whole refused."
    tree = ['a.png', 'cats/a.png', 'cats/cats/a.png', 'dogs/cats/a.png', 'dogs/b.png']
    for chosen in product([False, True], repeat=len(tree)):
        named = [path for path,is_in in zip(tree, chosen) if is_in]
        try: found = match_paths([before + path for path in named], tree)
        except ValueError as e: assert 'may be' in str(e) and len(before) > 2 and 'a.png' not in named
        else: assert list(found.values()) == named

@pytest.mark.skipif(sys.platform != 'linux', reason='file names are bytes')
def test_file_names_that_are_not_utf8_are_all_named(tmp_path):
    for name in ('K\xe4se.png', 'sub/\xff.png', 'good.png'):
        path = os.fsencode(tmp_path) + b'/' + name.encode('latin1')
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, 'w').close()
    with pytest.raises(ValueError) as e: image_paths(tmp_path)
    assert str(e.value) == r'2 images have names that are not UTF-8: K\xe4se.png, sub/\xff.png. Rename them.'

# --- tables ---
PATHS = ['a.png', 'b.png', 'cats/c.png', 'Käse.png', 'nan.png']
AB = {'a.png': 'cat', 'b.png': 'dog'}

def sheet(*lines, end='\n', code='utf-8'): return ''.join(line + end for line in lines).encode(code)
HEAD = 'image,label'
TABLES = { # how a table is written: (its bytes, its labels or what the sentence says)
    'plain': (sheet(HEAD, 'a.png,cat', 'b.png,dog', 'cats/c.png,'), AB),
    'no last line end': (sheet(HEAD, 'a.png,cat', 'b.png,dog').strip(), AB),
    'old line ends': (sheet(HEAD, 'a.png,cat', 'b.png,dog', end='\r'), AB),
    'a mark in front': (sheet(HEAD, 'a.png,cat', 'b.png,dog', end='\r\n', code='utf-8-sig'), AB),
    'marks between': (b'\xef\xbb\xbf'.join([b'', b'image,label\n', b'a.png,cat\n', b'b.png,dog\n']), AB),
    'empty lines first': (sheet('', ',,', HEAD, 'a.png,cat', '', 'b.png,dog'), AB),
    'quotes': (sheet('"image","label"', '"a.png","cat"', '"b.png","dog"'), AB),
    'capitals': (sheet('Image,LABEL', 'a.png,cat', 'b.png,dog'), AB),
    'blanks in the header': (sheet(' image , label ', 'a.png,cat', 'b.png,dog'), AB),
    'a blank after each comma': (sheet('image, label', 'a.png, "cat"', 'b.png, dog'), AB),
    'a blank that does not break': (sheet('image,label\xa0', 'a.png,cat\xa0', 'b.png\u200b,dog'), AB),
    'full-width letters': (sheet('ｉｍａｇｅ,label', 'a.png,cat'), 'columns found: ｉｍａｇｅ, label.*rename ｉｍａｇｅ'),
    'other columns': (sheet('id,label,image,x,x', '1,cat,a.png,,', '2,dog,b.png,,3'), AB),
    'the index of pandas': (sheet(',image,label', '0,a.png,cat', '1,b.png,dog'), AB),
    'semicolons': (sheet('image;label', 'a.png;cat', 'b.png;dog', end='\r\n'), AB),
    'semicolons and commas': (sheet('image;label;score', 'a.png;cat;0,41', 'b.png;dog;0,5'), AB),
    'sep=;': (sheet('sep=;', 'image;label', 'a.png;cat', 'b.png;dog'), AB),
    'sep=, in quotes': (sheet('"sep=,"', HEAD, 'a.png,cat', 'b.png,dog'), AB),
    'sep= in UTF-16': (sheet('sep=\t', 'image\tlabel', 'a.png\tcat', 'b.png\tdog', end='\r\n', code='utf-16'), AB),
    'tabs': (sheet('image\tlabel', 'a.png\tcat', 'b.png\tdog'), AB),
    'bars': (sheet('image|label', 'a.png|cat', 'b.png|dog'), AB),
    'UTF-16': (sheet('image\tlabel', 'a.png\tcat', 'b.png\tdog', code='utf-16'), AB),
    'UTF-16, big end first': (b'\xfe\xff' + sheet(HEAD, 'a.png,cat', 'b.png,dog', code='utf-16-be'), AB),
    'UTF-16 without a mark': (sheet(HEAD, 'a.png,cat', 'b.png,dog', code='utf-16-le'), AB),
    'UTF-16, big end first, without a mark': (sheet(HEAD, 'a.png,cat', 'b.png,dog', code='utf-16-be'), AB),
    'cp1252': (sheet(HEAD, 'Käse.png,Käse', code='cp1252'), {'Käse.png': 'Käse'}),
    'not composed': (sheet(HEAD, nfd('Käse.png,Käse')), {'Käse.png': 'Käse'}),
    'an image called nan': (sheet(HEAD, 'nan.png,nan'), {'nan.png': 'nan'}),
    'paths on Windows': (sheet(HEAD, r'C:\photos\a.png,cat', r'C:\photos\b.png,dog'), AB),
    'an unlabelled image that is gone': (sheet(HEAD, 'a.png,cat', 'b.png,dog', 'x.png,'), AB),
    'no label at all': (sheet(HEAD, 'a.png', 'b.png,', 'cats/c.png,\u200b \xa0'), {}),
    'a column twice': (sheet('image,label,label', 'a.png,cat,dog'), r'two columns label \(columns found: image, label, label\): leave one'),
    'a column twice in two cases': (sheet('image,Label,label', 'a.png,cat,dog'), 'two columns label'),
    'a column twice, as pandas names it': (sheet('image,label,label.1', 'a.png,cat,dog'), 'two columns label .*label.1'),
    'two columns of images': (sheet('image,image,label', 'a.png,b.png,cat'), 'two columns image'),
    'no header': (sheet('a.png,cat', 'b.png,dog'), 'no column image .columns found: a.png, cat.: its first line must name them'),
    'other names': (sheet('file,class', 'a.png,cat'), 'no column image .columns found: file, class'),
    'a plural': (sheet('image,labels', 'a.png,cat'), 'no column label .columns found: image, labels.: rename labels'),
    'a letter too few': (sheet('image,lable', 'a.png,cat'), 'rename lable'),
    'semicolons without the column': (sheet('image;class', 'a.png;cat'), 'no column label .columns found: image, class'),
    'an empty file': (b'', 'no column image .columns found: none'),
    'blanks only': (b' \n\n', 'columns found: none'),
    'a spreadsheet': (b'PK\x03\x04\x14\0\x06', 'is not a CSV in UTF-8'),
    'an old spreadsheet': (b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1', 'is not a CSV in UTF-8'),
    'a picture': (b'\x89PNG\r\n\x1a\n\0\0\0\r', 'is not a CSV in UTF-8'),
    'half a letter of UTF-16': (sheet(HEAD, code='utf-16') + b'x', 'is not a CSV in UTF-8'),
    'UTF-8 but for one line': (sheet(HEAD, 'Käse.png,Käse') + b'a.png,K\xe4se\n', 'is not a CSV in UTF-8'),
    'an image twice': (sheet(HEAD, 'a.png,cat', 'a.png,cat'), 'names a.png in lines 2 and 3: remove one'),
    'an image twice, called otherwise': (sheet(HEAD, 'a.png,cat', '', './a.png,dog'), 'names ./a.png in lines 2 and 4: remove one'),
    'an image twice in two forms': (sheet(HEAD, 'Käse.png,cat', nfd('Käse.png') + ',cat'), 'in lines 2 and 3: remove one'),
    'another case': (sheet(HEAD, 'A.PNG,cat'), 'l.csv: The folder has no image A.PNG: did you mean a.png?'),
    'a comma too many': (sheet(HEAD, 'a.png,hen, small'), 'Line 2 of .*l.csv has more values .* holds a comma needs quotes'),
    'a semicolon too many': (sheet('image;label', 'a.png;hen; small'), 'one that holds a semicolon needs quotes'),
    'a row of another separator': (sheet(HEAD, 'a.png;cat'), {}),
    'a wrong guess of the encoding': (sheet(HEAD, 'Käse.png,cat', code='mac-roman'), r'l.csv \(read as cp1252\): The folder has no image K')}

@pytest.mark.parametrize('what', TABLES)
def test_a_table(what, tmp_path):
    raw, expected = TABLES[what]
    file = tmp_path/'l.csv'
    file.write_bytes(raw)
    if isinstance(expected, dict): assert csv_labels(file, PATHS, [].append) == expected
    else:
        with pytest.raises(ValueError, match=expected) as e: csv_labels(file, PATHS)
        assert '\n' not in str(e.value)

@pytest.mark.parametrize('what', [k for k,(raw,_) in TABLES.items() if raw and not k.endswith(('spreadsheet', 'picture', 'of UTF-16', 'one line'))])
def test_a_text_is_kept_to_the_byte(what, tmp_path):
    (tmp_path/'l.csv').write_bytes(TABLES[what][0])
    assert read_text(tmp_path/'l.csv').raw == TABLES[what][0]

def test_rows_that_could_vanish_are_told(tmp_path):
    "A label that is no label to us, and an image that is gone."
    file, said = tmp_path/'l.csv', []
    for rows in ['a.png,cat', 'b.png;dog'], ['a.png,cat', 'b.png,', 'x.jpeg,'], ['a.png,cat', 'b.png,']:
        file.write_bytes(sheet(HEAD, *rows))
        csv_labels(file, PATHS, said.append)
    assert said == [f'{file}, in rows without a label: The folder has no image b.png;dog: did you mean b.png?',
                    f'{file}, in rows without a label: The folder has no image x.jpeg: its 5 images have other names, such as a.png.']

def test_what_was_assumed_is_said(tmp_path):
    file, said = tmp_path/'l.csv', []
    for code in 'cp1252', 'utf-16', 'utf-8':
        file.write_bytes(sheet(HEAD, 'Käse.png,Käse', code=code))
        csv_labels(file, PATHS, said.append)
    assert said == [f'{file} (read as cp1252) is not in UTF-8: if it says Käse, it was read rightly.', f'{file} is in UTF-16, not UTF-8.']

@pytest.mark.parametrize('save', [
    lambda f, name: f.to_csv(name), lambda f, name: f.to_csv(name, index=False, sep=';', decimal=','), lambda f, name: f.to_csv(name, index=False, sep='\t', encoding='utf-16'),
    lambda f, name: f.to_csv(name, index=False, encoding='utf-8-sig'), lambda f, name: f.to_csv(name, index=False, encoding='cp1252', lineterminator='\r\n')])
def test_what_pandas_saves(save, tmp_path):
    frame = pd.DataFrame(dict(image=['a.png', 'b.png', 'cats/c.png', 'Käse.png'], label=['cat', 'dog', None, 'Käse'], score=[.5, .25, None, .1]))
    save(frame, tmp_path/'l.csv')
    assert csv_labels(tmp_path/'l.csv', PATHS, [].append) == AB | {'Käse.png': 'Käse'}

# --- class names ---
SLIPS = { # what happened: (what is written, what was meant)
    'a letter twice': ('Boott', 'Boot'), 'a letter left out': ('Trouer', 'Trouser'), 'another letter': ('Snesker', 'Sneaker'), 'two in turn': ('Pullvoer', 'Pullover'),
    'the last two': ('Sandla', 'Sandal'), 'an ending': ('Shirts', 'Shirt'), 'in one of two words': ('Ankle bootts', 'ankle_boots'), 'an umlaut': ('Pferdë', 'Pferde'),
    'and another case': ('SNEAKRE', 'sneaker'), 'one in a row of the same': ('Booooot', 'Boooooot'), 'other letters than Latin': ('собакка', 'собака')}
NO_SLIPS = { # what differs, though it is not likely to be a slip
    'three letters': ('cat', 'car'), 'four letters': ('bees', 'beet'), 'digits': ('1', '2'), 'digits of more places': ('10001', '10002'), 'a number at the end': ('img1', 'img2'),
    'a number of a long name': ('picture 1', 'picture 2'), 'a number that is joined': ('sample10', 'sample11'), 'a number that is longer': ('sample1', 'sample11'),
    'a letter that is a number': ('class A', 'class B'), 'Roman numbers': ('stage IV', 'stage V'), 'the first letter': ('mouse', 'house'), 'a letter in front': ('typical', 'atypical'),
    'case alone': ('Boots', 'boots'), 'nothing': ('Boots', 'Boots'), 'a joint': ('ankle boot', 'ankle-boot'), 'two letters': ('Boottts', 'Boots'), 'two that are apart': ('Snaekar', 'Sneaker'),
    'a word': ('large dog', 'dog'), 'a sign': ('C+++++', 'C++++'), 'no letter': ('', 'abcde'), 'two words': ('Ankel bot', 'Ankle boot')}

@pytest.mark.parametrize('what', SLIPS)
def test_a_slip(what): assert is_slip(*SLIPS[what]) and is_slip(*SLIPS[what][::-1])
@pytest.mark.parametrize('what', NO_SLIPS)
def test_no_slip(what): assert not is_slip(*NO_SLIPS[what]) and not is_slip(*NO_SLIPS[what][::-1])

def told_of(counts, tmp_path, **named):
    "What is said of so many labels of each class."
    names = [name for name,n in counts.items() for _ in range(n)]
    frame = pd.DataFrame(dict(image=[f'{i}.png' for i in range(len(names))], label=names))
    frame.to_csv(tmp_path/'l.csv', index=False)
    said = []
    read_labels(tmp_path/'l.csv', frame.image.tolist(), say=said.append, **named)
    return said[0]

@pytest.mark.parametrize('few,many,asks', [(1, 10, True), (2, 10, True), (3, 10, False), (1, 9, False), (2, 500, True)])
def test_a_class_that_may_be_a_slip_is_asked_for(few, many, asks, tmp_path):
    says = f'Boott ({few}) is one letter from Boot ({many}), but counts as a class of its own. Did you mean Boot?'
    assert (says in told_of(dict(Boot=many, Boott=few, Bag=5), tmp_path)) == asks
    assert 'Did you mean' not in told_of(dict(Boot=many, Boott=few), tmp_path, classes=('Boot', 'Boott'))
    assert 'Did you mean' not in told_of({'cat': many, 'car': few, '1': many, '2': few, 'img1': many, 'img2': few}, tmp_path)

def test_a_folder_that_may_be_a_slip_is_asked_for():
    said = []
    read_labels('folders', [*(f'Boot/{i}.png' for i in range(10)), 'Boott/x.png'], say=said.append)
    assert said[0].endswith('Did you mean Boot?')

def told(tmp_path, labels, classes=(), more=None):
    "What is said of a table with these labels, from the second line on; of two tables, where there is a second."
    paths = [f'{i:02}.png' for i in range(99)]
    sources = [tmp_path/'l.csv']
    pd.DataFrame(dict(image=paths[:len(labels)], label=labels)).to_csv(sources[0], index=False)
    if more is not None:
        sources.append(tmp_path/'m.csv')
        pd.DataFrame(dict(image=paths[50:50+len(more)], label=more)).to_csv(sources[1], index=False)
    said = []
    y_N, names, _ = read_labels(sources, paths, classes, said.append)
    return said[0].splitlines() if said else [], [names[y] if y >= 0 else None for y in y_N if y >= 0], names

NOTES = { # what the labels are: (labels, --classes, lines that are said)
    'as they should be': (['cat']*3 + ['dog']*2, (), ['5 labelled, 2 classes: cat 3, dog 2.']),
    'none': ([], ('cat', 'dog'), []),
    'a class without a label': (['cat']*2, ('cat', 'dog'), ['2 labelled, 1 of 2 classes: cat 2.', 'No label yet for dog.']),
    'a class of one': (['cat']*2 + ['dog'], (), ['3 labelled, 2 classes: cat 2, dog 1.', 'Classes with only one label: dog.']),
    'two forms of one name': ([KAESE, nfd(KAESE), 'dog', 'dog'], (), ['4 labelled, 2 classes: Käse 2, dog 2.']),
    'two cases': (['Bag']*3 + ['bag']*2, (), ['5 labelled, 2 classes: Bag 3, bag 2.', 'Bag (3) and bag (2) differ only in case or form, but count as different classes.']),
    'two cases in --classes': (['Bag']*2 + ['dog']*2, ('Bag', 'bag', 'dog'), ['4 labelled, 2 of 3 classes: Bag 2, dog 2.', 'No label yet for bag.',
        'Bag (2) and bag (0) differ only in case or form, but count as different classes.']),
    'mostly nan': (['cat']*2 + ['dog']*2 + ['nan']*9, (), ['13 labelled, 3 classes: nan 9, cat 2, dog 2.', 'Almost all labels (9 of 13) are nan: leave cells without a label empty.']),
    'mostly NA and None': (['cat']*2 + ['NA']*2 + ['None']*2, (), ['6 labelled, 3 classes: cat 2, NA 2, None 2.', 'Almost all labels (4 of 6) are NA, None: leave cells without a label empty.']),
    'many of them none': (['cat']*3 + ['none']*5, (), ['8 labelled, 2 classes: none 5, cat 3.']),
    'doubt as a class': (['cat']*3 + ['dog']*3 + ['?', 'n/a'], (), ['8 labelled, 4 classes: cat 3, dog 3, ? 1, n/a 1.', 'Classes with only one label: ?, n/a.', 'Counted as classes: ?, n/a. Leave cells without a label empty.']),
    'dates': (['1-Feb']*2 + ['2026-02-01']*2, (), ['4 labelled, 2 classes: 1-Feb 2, 2026-02-01 2.', 'A spreadsheet may have made these labels of other names: 1-Feb, 2026-02-01.']),
    'a wrong encoding': (['KÃ¤se']*2 + ['dog']*2, (), ['4 labelled, 2 classes: KÃ¤se 2, dog 2.', 'These labels look as if they were read in a wrong encoding: KÃ¤se.']),
    'many classes': ([f'c{i}' for i in range(25) for _ in 'ab'], (), [f"50 labelled, 25 classes: {', '.join(f'c{i} 2' for i in range(20))}, 5 more."])}

@pytest.mark.parametrize('what', NOTES)
def test_what_is_told(what, tmp_path):
    labels, classes, lines = NOTES[what]
    assert told(tmp_path, labels, classes)[0] == lines

MEANT = { # what a program made of names: (labels, labels of a second file, --classes, labels as they are read)
    'pandas made floats': (['1', '2', '1'], ['1.0', '2.0'], (), ['1', '2', '1', '1', '2']),
    'pandas made floats of all': ([1.0, None, 2.0], ['1.0'], (), ['1.0', '2.0', '1.0']),
    'floats for --classes': ([1.0, None, 2.0], None, ('1', '2'), ['1', '2']),
    'numbers in German': (['1', '2'], ['1,0'], (), ['1', '2', '1']),
    'negative numbers': (['-1', '1'], ['-1.0'], (), ['-1', '1', '-1']),
    'a spreadsheet wrote capitals': (['true', 'false'], ['TRUE', 'FALSE'], (), ['true', 'false', 'true', 'false']),
    'pandas wrote Python': (['true', 'false'], ['True', 'False'], (), ['true', 'false', 'true', 'false']),
    'capitals for --classes': (['TRUE', 'FALSE'], None, ('True', 'False'), ['True', 'False']),
    'capitals only': (['TRUE', 'FALSE'], None, (), ['TRUE', 'FALSE']),
    'not composed in the second file': ([KAESE, 'dog'], [nfd(KAESE)], (), [KAESE, 'dog', KAESE]),
    'not composed in --classes': ([KAESE, 'dog'], None, (nfd(KAESE), 'dog '), [KAESE, 'dog'])}

@pytest.mark.parametrize('what', MEANT)
def test_which_name_was_meant(what, tmp_path):
    labels, more, classes, meant = MEANT[what]
    lines, found, names = told(tmp_path, labels, classes, more)
    assert found == meant and {*found} == {*names}

def test_what_was_renamed_is_said(tmp_path):
    assert told(tmp_path, ['1', '2'], more=['1.0', '2.00'])[0][:2] == ['The label 1.0 is read as 1.', 'The label 2.00 is read as 2.']

UNKNOWN = { # what a label is beside --classes cat,dog,1: the end of the sentence
    'Cat': 'Did you mean cat?', 'CAT': 'Did you mean cat?', 'cats': 'Did you mean cat?', '01': 'Did you mean 1?', 'horse': 'the classes are cat, dog, 1.',
    'NA': 'Leave the cell empty where there is no label.', 'nan': 'Leave the cell empty where there is no label.', '#N/A': 'Leave the cell empty where there is no label.'}

@pytest.mark.parametrize('name', UNKNOWN)
def test_a_label_that_is_no_class(name, tmp_path):
    with pytest.raises(ValueError) as e: told(tmp_path, ['cat', 'dog', name], ('cat', 'dog', '1'))
    assert str(e.value).startswith(f'There is a label {name!r}: the classes are cat, dog, 1.') and str(e.value).endswith(UNKNOWN[name])

MADE = ['2026-02-01', '2026-02-01 00:00:00', '01.02.2026', '1/2/26', '1-Feb', '02-Jan', '1. Mrz', '3 Mai 2026', 'Sep-01', 'MAR 02', '1.23E+05', '1E+3']
NOT_MADE = ['1-2', '12', '2 cats', 'March hare', 'may', 'May', 'dec', 'e2', '1.2.3', '10-marble', 'A1']

@pytest.mark.parametrize('name,is_so', [*((name, True) for name in MADE), *((name, False) for name in NOT_MADE)])
def test_what_a_spreadsheet_made(name, is_so): assert is_made(name) == is_so

def test_names_in_a_wrong_encoding():
    for name in KAESE, 'Größe', '日本', 'naïve', 'Ærø': assert not is_misread(name) and is_misread(name.encode().decode('cp1252', errors='replace'))

def test_names_are_not_changed_without_a_reason():
    assert [as_meant(n, ['1', 'true', '2.0']) for n in ('2', '1.5', '0.1', 'v1.0', 'Bag', 'truth', '')] == ['2', '1.5', '0.1', 'v1.0', 'Bag', 'truth', '']

FOLDERS = { # folders: (--classes, labels or the end of the sentence, lines that are said)
    'as they are': ((), dict(cat=1, dog=1, new=1), 3),
    'with one that is no class': (('cat', 'dog'), dict(cat=1, dog=1), 'Folders that are no class are passed over: new.'),
    'in another case': (('Cat', 'Dog'), 'There is a folder cat: the classes are Cat, Dog. Did you mean Cat?', None),
    'in another case, one of them': (('cat', 'Dog'), 'Did you mean Dog?', None)}

@pytest.mark.parametrize('what', FOLDERS)
def test_folders(what):
    classes, expected, line = FOLDERS[what]
    said, paths = [], ['cat/1.png', 'dog/x/2.png', 'new/3.png', '4.png']
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected): read_labels('folders', paths, classes, said.append)
        assert not said
        return
    y_N, names, _ = read_labels('folders', paths, classes, said.append)
    assert dict.fromkeys(names, 1) == expected and (y_N >= 0).tolist() == [True, True, not classes, False]
    assert classes == () or line in said[0].splitlines()

def test_a_folder_of_a_mac():
    paths = [nfd('Käse/1.png'), 'Käse/2.png', 'Brot/3.png']
    assert read_labels('folders', paths, say=[].append)[1] == ('Brot', KAESE)
    assert read_labels('folders', paths, (KAESE, 'Brot'), [].append)[0].tolist() == [0, 0, 1]

@pytest.mark.parametrize('classes', ['cat,dog', ['cat', 'cat '], [KAESE, nfd(KAESE)], [1, 2], ['cat', ''], ['cat', '\u200b'], ['cat', None], ['cat', np.nan]])
def test_classes_that_are_no_names(classes):
    with pytest.raises(ValueError, match='list of different names'): as_classes(classes)
    with pytest.raises(ValueError, match='list of different names'): read_labels([], ['a.png'], classes)

@pytest.mark.parametrize('classes', [('cat', 'dog'), np.array(['cat', 'dog']), pd.Series(['cat ', 'dog']), pd.Index(['cat', 'dog']), dict(cat=1, dog=2), iter(['cat', 'dog'])], ids=lambda c: type(c).__name__)
def test_classes_in_any_container(classes): assert read_labels([], ['a.png'], classes)[1] == ('cat', 'dog')

def test_names_of_an_option():
    assert split_names(f'cat ,\u200bdog,"hen, small",{nfd(KAESE)},\xa0') == ['cat', 'dog', 'hen, small', KAESE]

def test_nothing_is_said_when_it_is_refused(tmp_path):
    (tmp_path/'l.csv').write_bytes(sheet(HEAD, 'Käse.png,Käse', 'a.png,x', code='cp1252'))
    said = []
    with pytest.raises(ValueError, match="label 'x'"): read_labels(tmp_path/'l.csv', PATHS, (KAESE, 'dog'), said.append)
    assert not said

def test_imports_little():
    slow = {'torch', 'numpy', 'pandas', 'PIL', 'fastcore'}
    for module in 'foundations.names', 'own_images.files':
        sh('python', '-c', f'import m2vaal_nb.{module}, sys; assert not {slow} & set(sys.modules)', cwd=ROOT)

DOORS = { # in a fresh Python, where nothing of the wing was imported: what is asked -> what it answers
    'an experiment': ("from m2vaal_nb.experiments import settings; print(*settings('trust_2b'))", 'trust_2b'),
    'a protocol': ("from m2vaal_nb.loop import Protocol; print(Protocol(learner='m1m2_graph', sampler='uherding').learner)", 'm1m2_graph'),
    'a method': ("from m2vaal_nb.experiments import protocol_for; from m2vaal_nb.loop import Protocol; print(protocol_for(Protocol(), 'linear_badge').sampler)", 'badge'),
    'a sampler to take': ("from m2vaal_nb.scale.own_sampler import take_sampler; print(take_sampler('uherding'))", 'uherding'),
    'a sampler to adapt': ("from m2vaal_nb.interop.views import find_sampler; print(find_sampler('uherding').__name__)", 'uherding'),
    'a method on features': ("from m2vaal_nb.own_images.query import method_for; print(method_for('uherding_calibrated', True))", 'linear_uherding_calibrated'),
    'names of methods in logs': ("import pandas as pd; from m2vaal_nb.experiments import methods_in; print(*methods_in(pd.DataFrame(dict(method=['x', 'linear_uherding', 'linear_margin']))))", 'linear_margin linear_uherding x'),
    'a name that is none': ("from m2vaal_nb.loop import Protocol\ntry: Protocol(sampler='uhreding')\nexcept ValueError as e: print('perhaps uherding' in str(e))", 'True'),
    'what a pick was worth': ("import numpy as np, torch\nfrom m2vaal_nb.beyond.strategies import max_herding\nfrom m2vaal_nb.interop.views import told\nfrom m2vaal_nb.data import PoolView\n"
                              "z = torch.eye(4); v = PoolView(np.arange(4), 0, z_N_D=z, z_L_D=z[:1])\nprint(told(v, max_herding, np.array([1])) is not None)", 'True')}

@pytest.mark.parametrize('code, answer', DOORS.values(), ids=DOORS)
def test_names_are_found_in_a_fresh_python(code, answer):
    import subprocess, sys
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == answer, done.stderr
