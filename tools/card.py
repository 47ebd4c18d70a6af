"Draw nbs/card.png, what a link to the site shows: the name, one sentence, and Figure 2b from its logs."
from configparser import ConfigParser
from pathlib import Path
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
from m2vaal_nb.experiments import methods_in, read_results, style

ROOT = Path(__file__).resolve().parent.parent
SHOWN = ('random', 'margin', 'vaal', 'm2_vaal_no_adv')

def card(runs, title, sentence):
    "A figure of 1200 × 630 pixels."
    fig = plt.figure(figsize=(12, 6.3), dpi=100)
    fig.text(.05, .88, title, fontsize=34, fontweight='bold')
    fig.text(.05, .80, sentence, fontsize=15.5, color='#444444')
    ax = fig.add_axes((.09, .12, .62, .58))
    for method in [m for m in methods_in(runs) if m in SHOWN]:
        curve = runs[runs.method == method].groupby('n_labelled').test_acc.mean()*100
        colour, line, _ = style(method)
        ax.plot(curve.index, curve, line, color=colour, linewidth=3, label=method)
    ax.set(xlabel='labels', ylabel='test accuracy, %')
    ax.spines[['top', 'right']].set_visible(False)
    fig.legend(*ax.get_legend_handles_labels(), loc='center left', bbox_to_anchor=(.73, .42), fontsize=15, frameon=False)
    return fig

if __name__ == '__main__':
    ini = ConfigParser(delimiters=['='])
    ini.read(ROOT/'settings.ini', encoding='utf-8')
    fig = card(read_results(ROOT/'results/fig2b'), ini['DEFAULT']['lib_name'], ini['DEFAULT']['description'])
    fig.savefig(ROOT/'nbs/card.png', metadata={'Software': None})
