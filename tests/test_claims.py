"Verdicts follow from the numbers: every claim of the paper can come out true, false and undecided."
import html, json, re, warnings
from dataclasses import asdict
import numpy as np, pandas as pd, pytest
from scipy import stats
from conftest import ROOT
from m2vaal_nb.experiments import LINEUPS, METHODS, PROTOCOLS
from m2vaal_nb.paper.claims import CLAIMS, finished, judge, other_numbers, read_all, show_verdicts
from m2vaal_nb.paper.rules import NO, OPEN, PARTLY, YES, all_of, as_good, better, between, mean_of, number
from m2vaal_nb.paper.statistics import (
    CONTRASTS, area_table, areas, compare, contrasts, holm, smallest_difference, win_tie_loss)

EVEN = [5]*10       # classes of fifty picks

def runs(accuracy, noise=.002, seeds=range(5), wrong=.3, classes=None, auc=.6):
    "Made-up logs: accuracy is {method: accuracy at the first of three rounds}, the last of which buys nothing."
    g = np.random.default_rng(0)
    def line(method, first, seed, r):
        share = wrong[method] if isinstance(wrong, dict) else wrong
        return dict(method=method, seed=seed, round=r, n_labelled=50*(r+1), d_auc=auc,
                    test_acc=first + .01*r + noise*g.standard_normal(),
                    queried=list(range(50)) if r < 2 else [],
                    queried_wrong=round(50*share), queried_classes=(classes or {}).get(method, EVEN))
    return pd.DataFrame([line(m, a, s, r) for m,a in accuracy.items() for s in seeds for r in range(3)])

def alike(lineup, accuracy, **kwargs): return runs({m: accuracy for m in LINEUPS[lineup]}, **kwargs)

def measured(row, *parts):
    "Rows of five seeds for each part."
    return pd.DataFrame([row(s, *part) for s in range(5) for part in parts])

FIG4 = dict(
    wrong=dict(kingma_random=.3, algorithm_2=.66, algorithm_1=.4, kingma_entropy=.5, kingma_least_confidence=.5),
    classes=dict(algorithm_1=[6, 4]*5, algorithm_2=[6, 4]*5, kingma_least_confidence=[23] + [3]*9))

PAPER = dict( # what the paper says
    fig2a=runs(dict(random=.82, m2_random=.83, vaal=.82, ta_vaal=.86, m2_vaal=.82, m2_vaal_no_adv=.82), auc=.5),
    fig2b=runs(dict(random=.26, m2_random=.27, margin=.30, entropy=.29, vaal=.29, ta_vaal=.29, m2_vaal=.26,
                    m2_vaal_no_adv=.28), classes=dict(m2_vaal_no_adv=[41] + [1]*9), noise=.0005),
    fig4=alike('fig4', .7, **FIG4),
    fig4_large=alike('fig4_large', .7),
    mnist=runs(dict(random=.93, margin=.93, kingma_random=.96, kingma_entropy=.96, m2_random=.96, m2_vaal_no_adv=.96)),
    longer=pd.concat([alike(f'longer/{s}', .96).assign(setting=s) for s in ('steps-1600', 'steps-6400')]),
    fig3=measured(lambda s, n, error, acc: dict(seed=s, n_labelled=n, squared_error=error + .0001*s,
                                                test_acc=acc + .001*s), (500, .04, .26), (2000, .02, .8)),
    latents=measured(lambda s, space, v: dict(method='kingma_random', seed=s, space=space, silhouette=v + .001*s,
                                              neighbours=v + .3 + .001*s, evenness=v + .4 - .001*s),
                     ('pixels', .2), ('z', .4), ("[z, y']", .5)),
    gradients=measured(lambda s, i: dict(seed=s, step=i, cosine_adversarial=-.02 + .01*(-1)**i, norm_adversarial=1.),
                       *((i,) for i in range(4))))

TURNED = dict( # column -> how it is turned around
    test_acc=lambda v: 1 - v, squared_error=lambda v: 1 - v, neighbours=lambda v: 1 - v, evenness=lambda v: 1 - v,
    silhouette=lambda v: .5 - v, d_auc=lambda v: 1.1 - v, queried_wrong=lambda v: 50 - v,
    queried_classes=lambda v: v.map(lambda c: [50] + [0]*9 if c == EVEN else EVEN),
    cosine_adversarial=lambda v: .9 + 0*v)

def upside_down(results):
    "The same with every accuracy, share and error turned around."
    def turn(t): return t.assign(**{k: f(t[k]) for k,f in TURNED.items() if k in t})
    return {name: turn(t) for name,t in results.items()}

def names(claim, *words): return any(w in claim for w in words)

def test_the_papers_numbers_reproduce_the_paper():
    found = judge(PAPER)
    not_in_its_figures = 'expected, not shown', 'not informative', 'knows the classes'
    shown = ~found.claim.map(lambda c: names(c, *not_in_its_figures))
    assert set(found[shown].verdict) == {YES}, found[shown & (found.verdict != YES)].to_string()

def test_the_opposite_numbers_do_not():
    found = judge(upside_down(PAPER))
    both = found[found.verdict == YES].claim
    either = ( # nobody is ahead, or the algorithm is so
        'as good as', 'about as much as', 'as random picks do', 'as many of each predicted class', 'as often as',
        'not informative', 'knows the classes')
    assert all(names(c, *either) for c in both), list(both)
    assert (found.verdict == NO).sum() > len(CLAIMS)/2

def test_nothing_is_decided_without_results():
    found = judge({}).verdict
    assert set(found) == {OPEN, YES} and (found == YES).sum() == 1

def test_one_seed_decides_nothing():
    one = {k: t[t.seed == 0] for k,t in PAPER.items()}
    assert (judge(one).verdict == YES).sum() == 1

@pytest.mark.parametrize('claim', CLAIMS, ids=lambda c: c.text[:40])
def test_each_claim_names_methods_that_are_run(claim):
    "A rule that reads a method which its experiment never runs would stay undecided for ever."
    said = claim.rule(PAPER).evidence
    assert not names(said, '0 pairs', 'nothing measured', 'has not been run')

def test_each_claim_stands_once():
    assert len({c.text for c in CLAIMS}) == len(CLAIMS) == len(judge({}))

def test_an_interval_that_holds_the_threshold_is_undecided():
    near = number('fig4', 'accuracy', mean_of('test_acc', round=0), between(.65, .75))
    def about(a, noise): return dict(fig4=runs({'kingma_random': a}, noise=noise))
    assert [near(about(a, .001)).word for a in (.7, .6, .8)] == [YES, NO, NO]
    wide = about(.7, 0)['fig4']
    wide = wide.assign(test_acc=.5 + .1*wide.seed)          # both ends are outside, on two sides
    assert near(dict(fig4=wide)).word == OPEN

def test_a_number_of_one_seed_or_none_is_undecided():
    rule = number('fig4', 'accuracy', mean_of('test_acc', method='kingma_random'), between(0, 1))
    one, none = (dict(fig4=runs({m: .7}, seeds=[0])) for m in ('kingma_random', 'another'))
    assert rule(one).word == rule(none).word == OPEN
    assert rule(one).evidence.endswith('n=1') and rule(none).evidence == 'accuracy: nothing measured, n=0'

def test_a_share_is_shown_as_one():
    "Two seeds far apart give an interval that no share can have; the verdict knows all of it."
    one, two = .7, .9
    far = runs({'a': 0}, seeds=range(2))
    far = far.assign(test_acc=np.where(far.seed == 0, one, two))
    def said(least, holds=between(-.1, 1.1)): return number('fig4', 'accuracy', mean_of('test_acc'), holds, least=least)(dict(fig4=far))
    assert said(0).evidence == 'accuracy: 80.0% [0.0%, 100.0%], n=2' and said(0).word == OPEN
    assert said(-1).evidence == 'accuracy: 80.0% [-47.1%, 100.0%], n=2'

def test_as_good_is_not_the_absence_of_evidence():
    noisy = dict(fig2a=runs({'a': .8, 'b': .8}, noise=.2))
    assert better('fig2a', 'a', 'b')(noisy).word == as_good('fig2a', 'a', 'b')(noisy).word == OPEN

@pytest.mark.parametrize('points, word', [(.5, YES), (1.5, OPEN), (2.2, OPEN), (4, NO)])
def test_as_good_is_denied_only_beyond_the_margin(points, word):
    a, b = runs({'a': .8}, noise=0), runs({'b': .8 - points/100}, noise=0)
    b = b.assign(test_acc=b.test_acc + .003*(b.seed - 2))
    assert as_good('fig2a', 'a', 'b')(dict(fig2a=pd.concat([a, b]))).word == word
    assert as_good('fig2a', 'b', 'a')(dict(fig2a=pd.concat([a, b]))).word == word

@pytest.mark.parametrize('margin', [.503, .497])
def test_holm_is_asked_for_in_both_directions(margin):
    r = dict(PAPER, fig2b=runs({m: .5 for m in LINEUPS['fig2b']} | {'margin': margin}, noise=.004))
    p = contrasts(r).p_holm['fig2b', 'margin - random']
    for pair in (('margin', 'random'), ('random', 'margin')):
        v = better('fig2b', *pair)(r)
        assert 'Holm p' in v.evidence and (p <= .05 or v.word == OPEN)

def test_what_was_not_declared_is_marked():
    assert 'unadjusted' in better('fig2a', 'ta_vaal', 'm2_vaal')(PAPER).evidence

def test_parts():
    yes, no, undecided = (better('fig2a', *p) for p in (('a', 'b'), ('b', 'a'), ('a', 'missing')))
    toy = dict(fig2a=runs({'a': .9, 'b': .8}))
    for word,*parts in ((YES, yes, yes), (PARTLY, yes, no), (PARTLY, yes, undecided), (NO, no, undecided),
                        (OPEN, undecided, undecided), (NO, no, no)):
        assert all_of(*parts)(toy).word == word

def test_runs_that_are_not_finished_do_not_count():
    whole = runs({'a': .8, 'b': .7})
    behind = whole[~((whole.method == 'b') & (whole.seed == 0) & (whole['round'] == 2))]
    assert finished(whole).equals(whole)
    left = finished(behind)
    assert left.groupby('method').seed.nunique().to_dict() == {'a': 5, 'b': 4}
    sweep = pd.concat([behind.assign(setting='x'), whole[whole['round'] == 0].assign(setting='y')])
    assert finished(sweep).groupby('setting').size().to_dict() == {'x': len(left), 'y': 10}     # each by its own length

def logs_with(folder, setting, n_labelled=None, **changes):
    "One log of a round, at the end of the budget, whose protocol differs in what is given."
    (folder/setting).mkdir(parents=True, exist_ok=True)
    p = json.loads(json.dumps(asdict(PROTOCOLS[setting]))) | changes
    line = dict(method='random', seed=0, round=0, n_labelled=n_labelled or p['max_labels'], test_acc=.5, queried=[], protocol=p)
    (folder/setting/'random-0.jsonl').write_text(json.dumps(line) + '\n')

@pytest.mark.parametrize('changes', [dict(steps=20), dict(budget=10), dict(n_init=20), dict(max_labels=400), dict(init_classes=[1]), dict(precision='bfloat16')])
@pytest.mark.parametrize('setting', ['fig4', 'sensitivity/lr-0.003'])
def test_runs_with_other_numbers_are_no_evidence(setting, changes, tmp_path):
    name = setting.split('/')[0]
    logs_with(tmp_path, setting, sampler='margin', rounds=1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert [*read_all(tmp_path)] == [name]
        logs_with(tmp_path, setting, n_labelled=299)                   # cut short
        assert not read_all(tmp_path)
    logs_with(tmp_path, setting, **changes)
    with pytest.warns(UserWarning, match=f'{name} has runs with other numbers than {name} has .{[*changes][0]}.'): assert not read_all(tmp_path)

def test_fields_that_an_older_log_lacks_do_not_count():
    p = asdict(PROTOCOLS['long_2b'])
    older = {k: v for k,v in p.items() if k not in ('precision', 'layout')}
    assert not other_numbers('long_2b', pd.DataFrame(dict(protocol=[older]))) and not other_numbers('of my own', pd.DataFrame(dict(protocol=[p])))
    del older['decay']                                          # which had its default then: not that of long_2b
    assert other_numbers('long_2b', pd.DataFrame(dict(protocol=[older]))) == ['decay']

def test_areas():
    whole = runs({'a': .8, 'b': .7})
    first = whole[whole['round'] == 0]
    assert np.allclose(areas(first).a, first[first.method == 'a'].test_acc)          # one round: its accuracy
    shuffled = whole.sample(frac=1, random_state=0)
    assert areas(shuffled).equals(areas(whole))

def test_area_table_is_the_interval_of_compare():
    a = areas(runs({'a': .8, 'b': .7}, noise=.02))
    by_hand = stats.t.interval(.95, 4, loc=a.a.mean(), scale=a.a.sem())
    assert np.allclose(area_table(a).loc['a', ['low', 'high']], 100*np.array(by_hand))

def test_compare_is_the_paired_t_test():
    a = areas(runs({'a': .8, 'b': .79}, noise=.02))
    found, by_hand = compare(a, 'a', 'b'), stats.ttest_rel(a.a, a.b)
    interval = by_hand.confidence_interval()
    assert np.allclose([found['p'], found['low'], found['high']], [by_hand.pvalue, 100*interval.low, 100*interval.high])

def test_compare_takes_only_seeds_that_both_have():
    t = runs({'a': .8, 'b': .7})
    some = areas(t[~((t.method == 'b') & (t.seed > 1))])
    assert compare(some, 'a', 'b')['n'] == 2 and win_tie_loss(some).loc['a', 'b'] == '2-0-0'

def test_two_seeds_resolve_little():
    assert smallest_difference(1., 2) > 5

def test_holm_is_that_of_the_textbook():
    "Holm (1979): 3 x .01, 2 x .03, and never less than the one before."
    assert np.allclose(holm([.01, .04, .03]), [.03, .06, .06])
    assert np.allclose(holm([.5, np.nan]), [1, 1]) and np.allclose(holm([.2, np.nan]), [.4, 1])

def test_declared_contrasts_are_eight_of_methods_that_exist():
    assert len(CONTRASTS) == len(set(CONTRASTS)) == 8
    assert all({a, b} <= set(LINEUPS[name]) and {a, b} <= set(METHODS) for name,a,b in CONTRASTS)
    assert set(contrasts(PAPER).n) == {5}

# --- what the pages show ---
def shown(name):
    "All saved outputs of a notebook as one text, without the markup of tables."
    nb = json.loads(next((ROOT/'nbs').rglob(f'{name}.ipynb')).read_text(encoding='utf-8'))
    data = [o['data'] for c in nb['cells'] if c['cell_type'] == 'code' for o in c['outputs'] if 'data' in o]
    texts = [''.join(v) for d in data for k,v in d.items() if k.startswith('text/')]
    return html.unescape('\n'.join(texts)).replace(';<br>', '; ').replace(r'\|', '|')

def test_saved_pages_show_what_the_logs_say():
    "Verdicts in the outputs that the site shows are those of today's rules and today's logs."
    judged = judge(read_all(ROOT/'results'))
    text = {name: shown(name) for name in {'claims', *judged.page}}
    for c in judged.itertuples():
        for name in ('claims', c.page): assert c.evidence in text[name], f'{name}: {c.claim}'
        for said in (c.verdict, f'**{c.verdict}**'):
            if f'| {c.claim} | {said} | {c.evidence} | ' in text['claims']: break
        else: raise AssertionError(c.claim)

def test_the_home_page_counts_them():
    judged = judge(read_all(ROOT/'results'))
    n = [(judged.verdict == word).sum() for word in (YES, PARTLY, NO, OPEN)]
    later, foregone = ((judged.verdict == YES) & judged.claim.str.contains(mark) for mark in '†‡')
    said = 'Of {} claims of its Sections 1, 4 and 5, {} are reproduced ({} of these by rules that were written or changed after their logs, and {} could hardly have failed; {} bear neither mark), {} partly, {} not, and {} cannot be decided'
    assert said.format(len(judged), n[0], later.sum(), foregone.sum(), n[0] - (later | foregone).sum(), *n[1:]) in shown('index')

def test_a_table_of_verdicts_is_whole():
    "A row a claim, and as many cells in each, whatever the evidence says."
    judged = judge(PAPER)
    head, rule, *rows = [r for r in show_verdicts(judged).data.splitlines() if r.startswith('|')]
    cells = [len(re.split(r'(?<!\\)\|', r)) for r in (head, rule, *rows)]
    assert len(rows) == len(CLAIMS) and set(cells) == {7}
    assert any(r'\|cosine\|' in r for r in rows)

@pytest.mark.parametrize('n', [0, 1, 2, 5])
def test_methods_that_tie_exactly_are_as_good(n):
    "No difference in any pair is a finding, not a missing number; fewer than two pairs are none."
    one = runs(dict(a=.7), noise=0, seeds=range(max(n, 1)))
    tied = dict(made_up=pd.concat([one, one.assign(method='b', seed=one.seed + (n == 0))]))
    d = compare(areas(tied['made_up']), 'a', 'b')
    assert d['n'] == n and (n < 2 or (d['difference'], d['low'], d['high'], d['p'], d['resolves']) == (0, 0, 0, 1, 0))
    assert as_good('made_up', 'a', 'b')(tied).word == (OPEN if n < 2 else YES)
    assert better('made_up', 'a', 'b')(tied).word == OPEN
    if n == 5: assert contrasts(dict(fig4=tied['made_up'].replace(dict(method=dict(a='algorithm_1', b='kingma_random'))))).loc['fig4'].p.to_list()[0] == 1

def test_pairs_that_all_differ_by_the_same_are_decided():
    area = pd.DataFrame(dict(a=[.8]*5, b=[.75]*5))
    d = compare(area, 'a', 'b')
    assert d['difference'] == pytest.approx(5) and d['p'] < 1e-9
