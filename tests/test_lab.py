"Every notebook as its reader meets it: opened in JupyterLab in a browser, run from the menu, looked at. Only `make test-lab` comes here."
import json, os, shutil, signal, sys
from http.client import HTTPConnection
from types import SimpleNamespace
import psutil, pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from conftest import JUNK, NBS, ROOT

pytestmark = pytest.mark.lab
SETTINGS = {'@jupyterlab/notebook-extension:tracker': dict(windowingMode='none', scrollPastEnd=False),   # the page holds every cell, seen or not
            '@jupyterlab/apputils-extension:notification': dict(fetchNews='false')}                      # a question nobody is there to answer
FLAGS = '''headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking
           disable-component-update disable-sync window-size=1500,1000'''.split()

# The page as its reader sees it, a dict a cell. Data URIs load after the output that holds them: `loading` until then.
CELLS = '''
const all = (node, css, f) => [...node.querySelectorAll(css)].map(f)
return all(document, '.jp-Notebook .jp-Cell', cell => ({
    prompt: cell.querySelector('.jp-InputPrompt')?.textContent ?? '',
    loading: all(cell, '.jp-OutputArea img', o => o).some(o => !o.complete),
    widths: all(cell, '.jp-OutputArea img', o => o.naturalWidth),
    errors: all(cell, '[data-mime-type$=".error"], [data-mime-type$=".stderr"]', o => o.textContent)}))'''
WHOLE = '''
const outer = document.querySelector('.jp-Notebook .jp-WindowedPanel-outer')
outer.scrollTop = 0
return outer.scrollHeight - outer.clientHeight'''

def until(cond, secs=60):
    "Wait for a true `cond()`, and return it."
    return WebDriverWait(None, secs, .5, [OSError, ValueError, psutil.Error, StaleElementReferenceException]).until(lambda _: cond())

@pytest.fixture
def lab(tmp_path):
    "What `make lab` starts, but on a copy and with settings of its own. It takes its kernels along when it ends."
    shutil.copytree(ROOT/'nbs', tmp_path/'nbs', ignore=JUNK)
    if (ROOT/'results').exists(): shutil.copytree(ROOT/'results', tmp_path/'results')
    (tmp_path/'config/labconfig').mkdir(parents=True)
    (tmp_path/'config/labconfig/default_setting_overrides.json').write_text(json.dumps(SETTINGS))
    own = {f'JUPYTER_{o.upper()}_DIR': str(tmp_path/o) for o in ('config', 'data', 'runtime')} | {'IPYTHONDIR': str(tmp_path/'ipython')}
    signal.signal(signal.SIGTERM, signal.default_int_handler)   # as Ctrl-C: what follows `yield` is done then too
    proc = psutil.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', 'nbs'], cwd=tmp_path, env=os.environ | own)
    try:
        info = until(lambda: json.loads((tmp_path/f'runtime/jpserver-{proc.pid}.json').read_text()))
        yield SimpleNamespace(**info, proc=proc, nbs=tmp_path/'nbs')
    finally:
        family = [proc, *proc.children(recursive=True)]
        proc.terminate()
        for o in psutil.wait_procs(family, timeout=20)[1]: o.kill()

@pytest.fixture
def page(lab, tmp_path):
    "An empty browser."
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which('chromium')
    for o in (*FLAGS, f'user-data-dir={tmp_path}/browser'): options.add_argument(f'--{o}')
    with webdriver.Chrome(options, webdriver.ChromeService(shutil.which('chromedriver'))) as page: yield page

def css(page, selector): return page.find_elements(By.CSS_SELECTOR, selector)

def choose(page, *labels):
    "Click through a menu."
    for kind,label in zip(('lm-MenuBar-itemLabel', 'lm-Menu-itemLabel'), labels):
        found = f"//*[contains(@class, '{kind}')][normalize-space()='{label}']"
        until(lambda: [o for o in page.find_elements(By.XPATH, found) if o.is_displayed()])[0].click()

def at_rest(page):
    "The cells of `page`, once there is a kernel, and nothing that runs or waits to be run."
    for o in css(page, '.jp-Dialog'): pytest.fail(o.text)
    cells = page.execute_script(CELLS)
    if any(o['loading'] or '*' in o['prompt'] for o in cells): return []
    says = [o.get_attribute('textContent').strip() for o in css(page, '.jp-Notebook-ExecutionIndicator-tooltip span')]
    return cells if cells and 'Kernel status: Idle' in says else []

@pytest.mark.parametrize('nb', NBS, ids=lambda o: o.stem)
def test_runs_in_jupyterlab(nb, lab, page):
    name = nb.relative_to(ROOT/'nbs').as_posix()
    def read(): return json.loads((lab.nbs/name).read_text(encoding='utf-8'))['cells']
    saved = read()
    page.get(f'{lab.url}lab/tree/{name}?token={lab.token}')
    until(lambda: len(at_rest(page)) == len(saved))
    try:
        choose(page, 'Run', 'Run All Cells')
        until(lambda: any(o['prompt'].strip('[ ]:') for o in page.execute_script(CELLS)))   # busy, or done already
        shown = until(lambda: at_rest(page), 900)
        choose(page, 'File', 'Save Notebook')
        until(lambda: not css(page, '.jp-mod-dirty'))
    finally:
        for _ in range(2):   # laid out anew, it may have grown
            page.set_window_size(1500, page.get_window_size()['height'] + page.execute_script(WHOLE))
        (ROOT/'out/lab').mkdir(parents=True, exist_ok=True)
        page.save_screenshot(str(ROOT/f'out/lab/{nb.stem}.png'))
    for i,(before,after,seen) in enumerate(zip(saved, read(), shown, strict=True)):
        if before['cell_type'] != 'code': continue
        assert not seen['errors'] and not [o for o in after['outputs'] if o['output_type'] == 'error'], f'cell {i}'
        assert after['execution_count'] and seen['prompt'] == f"[{after['execution_count']}]:", f'cell {i} was not run'
        figures = sum(any(k.startswith('image/') for k in o.get('data', ())) for o in before['outputs'])
        assert len(seen['widths']) == figures and all(seen['widths']), f'cell {i} shows {seen["widths"]} for {figures} figures'

def test_listens_only_here_and_to_the_token(lab):
    def ask(method, path, token=None):
        conn = HTTPConnection('127.0.0.1', lab.port, timeout=20)
        conn.request(method, path, headers={'Authorization': f'token {token}'} if token else {})
        answer = conn.getresponse()
        return answer.status, (answer.getheader('Location') or '').split('?')[0]
    for token in None, 'x'*len(lab.token):
        assert ask('GET', '/lab', token) == (302, '/login')
        for path in 'contents', 'kernels', 'terminals': assert ask('GET', f'/api/{path}', token)[0] == 403
        assert ask('POST', '/api/kernels', token)[0] == 403
    assert len(lab.token) >= 32 and ask('GET', '/lab', lab.token)[0] == 200
    assert ask('POST', '/api/kernels', lab.token)[0] == 201

    def listening():
        family = [lab.proc, *lab.proc.children(recursive=True)]
        return [c.laddr for o in family for c in o.net_connections('inet') if c.status == psutil.CONN_LISTEN]
    until(lambda: {o.port for o in listening()} > {lab.port})   # the kernel listens as well
    assert {o.ip for o in listening()} <= {'127.0.0.1', '::1'}
