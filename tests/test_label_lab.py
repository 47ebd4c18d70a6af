"The labeller as its user meets it: clicked and typed at in JupyterLab in a browser. Only `make test-lab` comes here."
import json
import pytest
from PIL import Image
from selenium.webdriver.common.keys import Keys
from conftest import ROOT
from test_lab import at_rest, choose, css, lab, page, until

pytestmark = pytest.mark.lab
CELL = '''from m2vaal_nb.own_images.labeller import Labeller
Labeller('images', 'labels.csv', ['cat', 'dog', 'Käse, "alt"'], todo='next.csv')'''
NAMES = [f'{i:02}.png' for i in range(20)]

def test_label_in_jupyterlab(lab, page):
    "Ten clicks and an undo, a reload of the page and a second run, keys: the CSV holds what was meant, and the notebook is what it was."
    (lab.nbs/'images').mkdir()
    for i,o in enumerate(NAMES): Image.new('L', (28, 28), 12*i).save(lab.nbs/'images'/o)
    (lab.nbs/'next.csv').write_text('image,predicted,probability,score\n' + ''.join(f'{o},dog,0.9,0.1\n' for o in NAMES))
    cells = [dict(cell_type='code', id='a', metadata={}, source=CELL, outputs=[], execution_count=None)]
    (lab.nbs/'label.ipynb').write_text(json.dumps(dict(cells=cells, metadata=dict(kernelspec=dict(name='python3', display_name='python3')), nbformat=4, nbformat_minor=5)))
    def saved(): return (lab.nbs/'labels.csv').read_text(encoding='utf-8')
    def shows(said): until(lambda: said in [o.text for o in css(page, '.jp-OutputArea .widget-label')])
    def button(name): return next(o for o in css(page, '.jp-OutputArea button') if o.text.split(maxsplit=1)[1] == name)
    def press(name, n): button(name).click(); shows(f'{n} of 20 labelled, now {NAMES[n]}')
    def type_keys(keys): until(lambda: page.switch_to.active_element.tag_name == 'input'); page.switch_to.active_element.send_keys(keys)
    def run(n):
        page.get(f'{lab.url}lab/tree/label.ipynb?token={lab.token}')
        until(lambda: at_rest(page))
        choose(page, 'Run', 'Run All Cells')
        shows(f'{n} of 20 labelled, now {NAMES[n]}')
        until(lambda: at_rest(page))

    run(0)
    assert until(lambda: css(page, '.jp-OutputArea img'))[0].size == dict(width=420, height=420)
    meant = ['cat', 'dog', 'dog', 'Käse, "alt"', 'cat', 'dog', 'cat', 'cat', 'dog', 'dog']
    for i,name in enumerate(meant): press(name, i+1)
    ten = 'image,label\n' + ''.join(f'{o},{name}\n' for o,name in zip(NAMES, meant)).replace('Käse, "alt"', '"Käse, ""alt"""')
    assert saved() == ten
    press('undo', 9)
    assert saved() == ten.removesuffix('09.png,dog\n')
    type_keys('1')                          # the click has left the focus in the text field
    shows('10 of 20 labelled, now 10.png')
    ten = ten.replace('09.png,dog', '09.png,cat')
    assert saved() == ten
    assert not [o for o in css(page, '.jp-OutputArea .widget-label') if 'predicted' in o.text]
    button('prediction').click()
    shows('predicted: dog')
    (ROOT/'out/lab').mkdir(parents=True, exist_ok=True)
    css(page, '.jp-OutputArea .widget-vbox')[0].screenshot(str(ROOT/'out/lab/labeller.png'))

    run(10)
    css(page, '.jp-OutputArea input')[0].click()
    type_keys('212-+x')                     # typed at once: 10 dog, 11 cat, 12 dog and back, 12 skipped, no such key
    shows("There is no button with the key 'x'.")
    shows('12 of 20 labelled, now 13.png')
    type_keys(Keys.BACKSPACE)               # takes back a letter, not a label
    type_keys('3')
    shows('13 of 20 labelled, now 14.png')
    assert saved() == ten + '10.png,dog\n11.png,cat\n13.png,"Käse, ""alt"""\n'
    type_keys('/')                          # nobody can tell what 14 is
    shows('13 of 19 labelled, 1 put aside in labels.aside.txt, now 15.png')
    assert (lab.nbs/'labels.aside.txt').read_text() == '14.png\n'
    for o in button('undo'), button('undo'), button('undo'): o.click()      # the third goes back behind the skip
    shows('12 of 20 labelled, now 12.png')
    assert not (lab.nbs/'labels.aside.txt').read_text()
    assert saved() == ten + '10.png,dog\n11.png,cat\n'
    assert len(css(page, '.jp-Notebook .jp-Cell')) == 1 and css(page, '.jp-Notebook .jp-CodeCell')
