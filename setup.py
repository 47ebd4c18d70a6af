"Hands settings.ini to setuptools: change metadata and pins there."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

ini = ConfigParser(delimiters=['='])
ini.read('settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
lib = cfg['lib_path']
extras = {k.removesuffix('_requirements'): v.split() for k,v in cfg.items() if k.endswith('_requirements')}
pythons = [f'3.{i}' for i in range(*(int(cfg[k].split('.')[1]) + d for k,d in (('min_python',0), ('max_python',1))))]

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    license={'apache2': 'Apache-2.0'}[cfg['license']],
    keywords=cfg['keywords'],
    url=cfg['git_url'],
    project_urls={'Documentation': cfg['doc_host'] + cfg['doc_baseurl']},
    classifiers=[f"Intended Audience :: {cfg['audience']}", f"Natural Language :: {cfg['language']}",
                 *(f'Programming Language :: Python :: {o}' for o in pythons)],
    packages=find_packages(include=[lib, f'{lib}.*']),
    package_data={lib: ['beyond/weights/*']},   # learned once, so that nobody has to again
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split(),
    extras_require={**extras, 'dev': sorted({o for v in extras.values() for o in v})},
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f'{lib}={lib}._modidx:d']},   # lets nbdev link `names` in prose to their documentation
    zip_safe=False)
