"Verdicts follow from the numbers: every claim of the paper can come out true, false and undecided."
import html, json
import numpy as np, pandas as pd, pytest
from scipy import stats
from conftest import ROOT
from m2vaal_nb.paper.claims import CLAIMS, NO, OPEN, PARTLY, YES, all_of, as_good, better, judge, number, read_all
from m2vaal_nb.experiments import LINEUPS, METHODS
from m2vaal_nb.paper.statistics import CONTRASTS, areas, compare, contrasts, holm, win_tie_loss

def runs(accuracy, noise=.002, seeds=range(5), wrong=.3, classes=None, auc=.6, seed=0):
    "Made-up logs: accuracy is {method: accuracy at the first of three rounds}."
    g = np.random.default_rng(seed)
    rows = []
    for m,a in accuracy.items():
        for s in seeds:
            for r in range(3):
                spread = (classes or {}).get(m, [5]*10)
                rows.append(dict(method=m, seed=s, round=r, n_labelled=50*(r+1), test_acc=a + .01*r + noise*g.standard_normal(), queried=list(range(50)) if r < 2 else [],
                                 queried_wrong=round(50*(wrong[m] if isinstance(wrong, dict) else wrong)), queried_classes=spread, d_auc=auc))
    return pd.DataFrame(rows)

PAPER = dict( # what the paper says
    fig2a=runs({'random': .82, 'm2_random': .83, 'vaal': .82, 'ta_vaal': .86, 'm2_vaal': .82, 'm2_vaal_no_adv': .82}, auc=.5),
    fig2b=runs({'random': .26, 'm2_random': .27, 'margin': .30, 'entropy': .29, 'vaal': .29, 'ta_vaal': .29, 'm2_vaal': .26, 'm2_vaal_no_adv': .28},
               classes={'m2_vaal_no_adv': [41] + [1]*9}, noise=.0005),
    fig4=runs({m: .7 for m in LINEUPS['fig4']}, wrong={'kingma_random': .3, 'algorithm_2': .66, 'algorithm_1': .4, 'kingma_entropy': .5, 'kingma_least_confidence': .5},
              classes={'algorithm_1': [6, 4]*5, 'algorithm_2': [6, 4]*5, 'kingma_least_confidence': [23] + [3]*9}),
    mnist=runs({'random': .93, 'margin': .93, 'kingma_random': .96, 'kingma_entropy': .96, 'm2_random': .96, 'm2_vaal_no_adv': .96}),
    fig4_large=runs({m: .7 for m in LINEUPS['fig4_large']}),
    longer=pd.concat([runs({m: .96 for m in LINEUPS[f'longer/{setting}']}).assign(setting=setting) for setting in ('steps-1600', 'steps-6400')]),
    fig3=pd.DataFrame([dict(seed=s, n_labelled=n, squared_error=e + .0001*s, test_acc=a + .001*s) for s in range(5) for n,e,a in ((500, .04, .26), (2000, .02, .8))]),
    latents=pd.DataFrame([dict(method='kingma_random', seed=s, space=v, silhouette=a + .001*s, neighbours=a + .3 + .001*s, evenness=a + .4 - .001*s)
                          for s in range(5) for v,a in (('pixels', .2), ('z', .4), ("[z, y']", .5))]),
    gradients=pd.DataFrame([dict(seed=s, step=i, cosine_adversarial=.01*(-1)**i, norm_adversarial=1.) for s in range(5) for i in range(4)]))

def upside_down(results):
    "The same with every accuracy, share and error turned around."
    def turn(t):
        t = t.copy()
        for k in ('test_acc', 'squared_error', 'neighbours', 'evenness'):
            if k in t: t[k] = 1 - t[k]
        if 'silhouette' in t: t['silhouette'] = .5 - t.silhouette
        if 'd_auc' in t: t['d_auc'] = 1.1 - t.d_auc
        if 'queried_wrong' in t: t['queried_wrong'] = 50 - t.queried_wrong
        if 'queried_classes' in t: t['queried_classes'] = [[50] + [0]*9 if c == [5]*10 else [5]*10 for c in t.queried_classes]
        if 'cosine_adversarial' in t: t['cosine_adversarial'] = .9
        return t
    return {k: turn(t) for k,t in results.items()}

def test_the_papers_numbers_reproduce_the_paper():
    found = judge(PAPER).set_index('claim')
    not_shown = {c for c in found.index if any(w in c for w in ('expected, not shown', 'not informative', 'knows the classes'))}   # not shown by the paper's figures
    assert set(found.drop(not_shown).verdict) == {YES}, found.drop(not_shown)[lambda f: f.verdict != YES].to_string()

def test_the_opposite_numbers_do_not():
    found = judge(upside_down(PAPER)).set_index('claim')
    both = found[found.verdict == YES].index                    # true of either: nobody is ahead, or the algorithm is so
    assert all(any(w in c for w in ('as good as', 'about as much as', 'as random picks do', 'as many of each predicted class', 'as often as', 'not informative', 'knows the classes')) for c in both), list(both)
    assert (found.verdict == NO).sum() > len(CLAIMS)/2

def test_nothing_is_decided_without_results():
    assert set(judge({}).verdict) == {OPEN, YES} and (judge({}).verdict == YES).sum() == 1

def test_one_seed_decides_nothing():
    one = {k: t[t.seed == 0] for k,t in PAPER.items()}
    assert (judge(one).verdict == YES).sum() == 1

@pytest.mark.parametrize('claim', CLAIMS, ids=lambda c: c.text[:40])
def test_each_claim_names_methods_that_are_run(claim):
    "A rule that reads a method which its experiment never runs would stay undecided for ever."
    said = claim.rule(PAPER).evidence
    assert '0 pairs' not in said and 'nothing measured' not in said and 'has not been run' not in said

def test_an_interval_that_holds_the_threshold_is_undecided():
    about = lambda a, noise: dict(fig4=runs({'kingma_random': a}, noise=noise))
    near = number('fig4', 'accuracy', lambda r: r[r['round'] == 0].test_acc.mean(), lambda v: .65 < v < .75)
    assert [near(about(a, .001)).word for a in (.7, .6, .8)] == [YES, NO, NO]
    wide = about(.7, 0)['fig4']
    assert near(dict(fig4=wide.assign(test_acc=.5 + .1*wide.seed))).word == OPEN          # both ends are outside, on two sides

def test_as_good_is_not_the_absence_of_evidence():
    noisy = dict(fig2a=runs({'a': .8, 'b': .8}, noise=.2))
    assert better('fig2a', 'a', 'b')(noisy).word == OPEN and as_good('fig2a', 'a', 'b')(noisy).word == OPEN

def test_as_good_is_denied_only_beyond_the_margin():
    def apart(points): return dict(fig2a=pd.concat([runs({'a': .8}, noise=0), runs({'b': .8 - points/100}, noise=0).assign(test_acc=lambda t: t.test_acc + .003*(t.seed - 2))]))
    assert [as_good('fig2a', 'a', 'b')(apart(d)).word for d in (.5, 1.5, 2.2, 4)] == [YES, OPEN, OPEN, NO]

def test_holm_is_asked_for_in_both_directions():
    up = dict(PAPER, fig2b=runs({m: .5 for m in LINEUPS['fig2b']} | {'margin': .503}, noise=.004))
    down = dict(PAPER, fig2b=runs({m: .5 for m in LINEUPS['fig2b']} | {'margin': .497}, noise=.004))
    for r in (up, down):
        p = contrasts(r).p_holm['fig2b', 'margin - random']
        for pair in (('margin', 'random'), ('random', 'margin')):
            v = better('fig2b', *pair)(r)
            assert 'Holm p' in v.evidence and (p <= .05 or v.word == OPEN)
    assert 'unadjusted' in better('fig2a', 'ta_vaal', 'm2_vaal')(PAPER).evidence
def test_parts():
    yes, no, undecided = (better('fig2a', *p) for p in (('a', 'b'), ('b', 'a'), ('a', 'missing')))
    toy = dict(fig2a=runs({'a': .9, 'b': .8}))
    for parts,word in (((yes, yes), YES), ((yes, no), PARTLY), ((yes, undecided), PARTLY), ((no, undecided), NO), ((undecided, undecided), OPEN), ((no, no), NO)):
        assert all_of(*parts)(toy).word == word

def test_compare_is_the_paired_t_test():
    a = areas(runs({'a': .8, 'b': .79}, noise=.02))
    found, by_hand = compare(a, 'a', 'b'), stats.ttest_rel(a.a, a.b)
    interval = by_hand.confidence_interval()
    assert np.allclose([found['p'], found['low'], found['high']], [by_hand.pvalue, 100*interval.low, 100*interval.high])

def test_compare_takes_only_seeds_that_both_have():
    t = runs({'a': .8, 'b': .7})
    some = areas(t[~((t.method == 'b') & (t.seed > 1))])
    assert compare(some, 'a', 'b')['n'] == 2 and win_tie_loss(some).loc['a', 'b'] == '2-0-0'

def test_holm_is_that_of_the_textbook():
    assert np.allclose(holm([.01, .04, .03]), [.03, .06, .06])        # Holm (1979): 3 x .01, 2 x .03, and never less than the one before
    assert np.allclose(holm([.5, np.nan]), [1, 1])

def test_declared_contrasts_are_eight_of_methods_that_exist():
    assert len(CONTRASTS) == len(set(CONTRASTS)) == 8
    assert all({a, b} <= set(LINEUPS[name]) and {a, b} <= set(METHODS) for name,a,b in CONTRASTS)
    assert set(contrasts(PAPER).n) == {5}

def test_saved_pages_show_what_the_logs_say():
    "Verdicts in the outputs that the site shows are those of today's rules and today's logs."
    judged = judge(read_all(ROOT/'results'))
    def shown(name):
        nb = json.loads(next((ROOT/'nbs').rglob(f'{name}.ipynb')).read_text(encoding='utf-8'))
        return html.unescape(json.dumps([o['data'] for c in nb['cells'] if c['cell_type'] == 'code' for o in c['outputs'] if 'data' in o], ensure_ascii=False).replace('\\"', '"'))
    text = {name: shown(name) for name in {'claims', 'report', 'index', *judged.page}}
    for c in judged.itertuples():
        assert c.claim in text['claims'], c.claim
        for name in ('claims', 'report', c.page): assert c.evidence in text[name], f'{name}: {c.claim}'
    n = [(judged.verdict == word).sum() for word in (YES, PARTLY, NO, OPEN)]
    said = 'Of {} claims of its Sections 1, 4 and 5, {} are reproduced, {} partly, {} not, and {} cannot be decided'
    assert said.format(len(judged), *n) in text['index']
