"""The native losses a second time: slow loops over plain numbers, from the papers' formulas.

Vectors are lists of numbers. What a loss treats as constant (weights, galleries) loses its
imaginary part, which carries the derivative.
"""

import cmath
import math

from tests.losses.plain_numbers import (
    constant,
    cross_entropy,
    distance,
    dot,
    log_sum_exp,
    mean_vector,
    positive_part,
    refuse_kink,
    sigmoid,
    softmax,
    squared_distance,
    unit,
)

# HTL


def htl_statistics(images, labels):
    """d(p, q) between classes, spread s_c of each class, and d_0, their mean, by loops."""
    classes = range(max(labels) + 1)
    members = [[x for x, y in zip(images, labels, strict=True) if y == c] for c in classes]
    between = {
        (p, q): sum(squared_distance(a, b) for a in members[p] for b in members[q])
        / (len(members[p]) * len(members[q]))
        for p in classes
        for q in classes
        if p != q
    }
    spread = []
    for images_of_class in members:
        n = len(images_of_class)
        total = sum(squared_distance(a, b) for a in images_of_class for b in images_of_class)
        spread.append(total / (n * n - n) if n > 1 else 0.0)
    several = [s for s, m in zip(spread, members, strict=True) if len(m) > 1]
    return between, spread, sum(several) / len(several) if several else 0.0


def htl_merge_thresholds(between, classes, d_0, levels, linkage):
    """The threshold d_l that makes two classes one node, by merging the nearest nodes in turn."""
    reduce = {"single": min, "average": lambda values: sum(values) / len(values)}[linkage]
    nodes, merged_at = [[c] for c in range(classes)], {}
    for level in range(levels + 1):
        threshold = level * (4 - d_0) / levels + d_0
        while len(nodes) > 1:
            gap, a, b = min(
                (reduce([between[p, q] for p in nodes[i] for q in nodes[j]]), i, j)
                for i in range(len(nodes))
                for j in range(i)
            )
            if gap >= threshold and level < levels:  # the top level is one node
                break
            for p in nodes[a]:
                for q in nodes[b]:
                    merged_at[p, q] = merged_at[q, p] = threshold
            nodes[b] += nodes.pop(a)
    return merged_at


def htl_margins(images, labels, *, beta, levels, linkage):
    """The margin alpha of each pair of an anchor class and a negative class."""
    between, spread, d_0 = htl_statistics([unit(x) for x in images], labels)
    between = {pair: d.real for pair, d in between.items()}
    spread = [s.real for s in spread]
    merged_at = htl_merge_thresholds(between, len(spread), d_0.real, levels, linkage)
    return {(a, n): beta + threshold - spread[a] for (a, n), threshold in merged_at.items()}


def htl(embeddings, labels, *, margins, squared):
    """1/(2 Z) sum over all triplets of [d_ap - d_an + alpha]_+."""
    f, metric = [unit(x) for x in embeddings], squared_distance if squared else distance
    total, triplets = 0.0, 0
    for a, label in enumerate(labels):
        for p, of_positive in enumerate(labels):
            for n, of_negative in enumerate(labels):
                if p != a and of_positive == label != of_negative:
                    triplets += 1
                    margin = margins[label, of_negative]
                    total += positive_part(metric(f[a], f[p]) - metric(f[a], f[n]) + margin)
    return total / (2 * max(triplets, 1))


# SoftTriple


def softtriple(embeddings, labels, *, centers, la, gamma, tau, margin):
    """Cross-entropy of relaxed similarities; tau/(C K (K - 1)) times the sum of the distances."""
    f, w = [unit(x) for x in embeddings], [[unit(x) for x in of_class] for of_class in centers]
    total = 0.0
    for x, y in zip(f, labels, strict=True):
        logits = []
        for c, of_class in enumerate(w):
            similarity = [dot(x, center) for center in of_class]
            share = softmax([s / gamma for s in similarity])
            logits.append(la * (dot(share, similarity) - (margin if c == y else 0)))
        total += cross_entropy(logits, y) / len(f)
    k = len(w[0])
    for of_class in w:
        for s in range(k):
            for t in range(s):
                apart = cmath.sqrt(2 + 1e-5 - 2 * dot(of_class[s], of_class[t]))
                total += tau * apart / (len(w) * k * (k - 1))
    return total


# RLL


def rll(
    embeddings,
    labels,
    *,
    alpha,
    margin,
    negative_temperature,
    positive_temperature,
    positive_share,
    negative_share,
    pair_gradient="unit",
    anchor_weighting="uniform",
    gallery_grad=False,
    weight_grad=False,
    blocks=1,
):
    """The shares of L_P and L_N, averaged over queries, and added over the blocks of an embedding.

    The average over queries is plain, or weighted as in the authors' code.
    """
    total, size = 0.0, len(embeddings[0]) // blocks
    for begin in range(0, blocks * size, size):
        f = [unit(x[begin : begin + size]) for x in embeddings]
        gallery = f if gallery_grad else [constant(x) for x in f]
        losses, raw = [], []
        for i, query in enumerate(f):
            parts = {1: ([], []), -1: ([], [])}  # hinges and exponents: positives, negatives
            for j, other in enumerate(gallery):
                sign = 1 if labels[j] == labels[i] else -1
                radius = alpha - margin if sign == 1 else alpha
                d = distance(query, other)
                violation = positive_part(sign * (d - radius))
                if j != i and violation.real > 0:
                    hinges, exponents = parts[sign]
                    half_squares = sign * (d * d - radius * radius) / 2
                    hinges.append(violation if pair_gradient == "unit" else half_squares)
                    temperature = positive_temperature if sign == 1 else negative_temperature
                    exponents.append(temperature * (violation if weight_grad else violation.real))
            pull, push = (dot(softmax(e), h) if h else 0.0 for h, e in parts.values())
            losses.append(positive_share * pull + negative_share * push)
            raw += [(i, exponent) for _, exponents in parts.values() for exponent in exponents]
        if anchor_weighting == "uniform":
            total += sum(losses) / len(losses)
        elif raw:
            weights = softmax([exponent for _, exponent in raw])
            total += sum(w * losses[i] for w, (i, _) in zip(weights, raw, strict=True))
    return total


# Losses on proxies


def proxy_anchor(embeddings, labels, *, proxies, alpha, delta):
    f, pull, push, present = [unit(x) for x in embeddings], 0.0, 0.0, 0
    for c, proxy in enumerate(unit(p) for p in proxies):
        positives, negatives = [0.0], [0.0]
        for x, y in zip(f, labels, strict=True):
            s = dot(x, proxy)
            if y == c:
                positives.append(-alpha * (s - delta))
            else:
                negatives.append(alpha * (s + delta))
        present += len(positives) > 1
        pull += log_sum_exp(positives)
        push += log_sum_exp(negatives)
    return pull / present + push / len(proxies)


def normalized_softmax(embeddings, labels, *, proxies, temperature):
    w, total = [unit(p) for p in proxies], 0.0
    for x, y in zip([unit(x) for x in embeddings], labels, strict=True):
        total += cross_entropy([dot(x, proxy) / temperature for proxy in w], y)
    return total / len(embeddings)


def proxynca_pp(embeddings, labels, *, proxies, temperature):
    w, total = [unit(p) for p in proxies], 0.0
    for x, y in zip([unit(x) for x in embeddings], labels, strict=True):
        total += cross_entropy([-squared_distance(x, proxy) / temperature for proxy in w], y)
    return total / len(embeddings)


def hpl(embeddings, labels, *, proxies, parents, weights, base, **learned):
    """Fine loss + weight x loss on the proxies of groups, for each coarse level.

    `parents` holds the group of each class at each coarse level. `learned` holds the proxies of
    these levels, by names that sort. Without it, they are the normalised means of the normalised
    proxies of the level below.
    """
    total, below = base(embeddings, labels, proxies=proxies), list(range(len(proxies)))
    for level, (group, weight) in enumerate(zip(parents, weights, strict=True)):
        if learned:
            proxies = learned[sorted(learned)[level]]
        else:
            vectors = [hpl_mean(p) if isinstance(p[0], list) else unit(p) for p in proxies]
            members = [{b for b, g in zip(below, group, strict=True) if g == k} for k in set(group)]
            proxies = [hpl_mean([vectors[b] for b in of_group]) for of_group in members]
        total += weight * base(embeddings, [group[y] for y in labels], proxies=proxies)
        below = group
    return total


def hpl_mean(vectors):
    return unit(mean_vector([unit(v) for v in vectors]))


def hpl_softtriple(embeddings, labels, *, proxies, **options):
    """SoftTriple on proxies: a group has one centre, a class several."""
    centers = [p if isinstance(p[0], list) else [p] for p in proxies]
    return softtriple(embeddings, labels, centers=centers, **options)


def proxygml(embeddings, labels, *, proxies, ratio, regularization):
    """ProxyGML; `proxies` (C, K, D)."""
    p = [[unit(proxy) for proxy in own] for own in proxies]
    per_class, total = len(p[0]), 0.0
    everything = [(c, k) for c in range(len(p)) for k in range(per_class)]
    size = max(math.ceil(ratio * len(everything)), 2 * per_class)
    for x, label in zip(embeddings, labels, strict=True):
        x = unit(x)
        s = {(c, k): dot(x, p[c][k]) for c, k in everything}
        others = [place for place in everything if place[0] != label]
        others.sort(key=lambda place: -s[place].real)
        graph = [(label, k) for k in range(per_class)] + others[: size - per_class]
        logits = {c: sum(s[place] for place in graph if place[0] == c) for c, _ in graph}
        total += log_sum_exp(logits.values()) - logits[label]
    total /= len(embeddings)
    for c, k in everything:
        logits = [sum(dot(p[c][k], other) for other in own) for own in p]
        total += regularization * cross_entropy(logits, c) / len(everything)
    return total


# Losses on pairs


def lifted_structure(embeddings, labels, *, margin):
    """Half the squared hinge of d + log sum exp(margin - d_neg), mean over positive pairs."""
    f, count, total = [unit(x) for x in embeddings], 0, 0.0
    images = range(len(f))
    for i, j in [(i, j) for i in images for j in images if i < j and labels[i] == labels[j]]:
        others = [k for k in images if labels[k] != labels[i]]
        count += 1
        if others:
            near = log_sum_exp([margin - distance(f[e], f[k]) for e in (i, j) for k in others])
            total += positive_part(distance(f[i], f[j]) + near) ** 2 / 2
    return total / max(count, 1)


# Losses on ranks


def smooth_ap(embeddings, labels, *, temperature):
    """1 - mean AP over queries, with sigmoids for ranks; a query is its own positive."""
    f, total = [unit(x) for x in embeddings], 0.0
    for i, query in enumerate(f):
        s = [dot(query, x) for x in f]
        positives = [j for j in range(len(f)) if labels[j] == labels[i]]
        precision = 0.0
        for j in positives:
            ahead = [sigmoid((s[k] - s[j]) / temperature) if k != j else 0.0 for k in range(len(f))]
            precision += (1 + sum(ahead[k] for k in positives)) / (1 + sum(ahead))
        total += 1 - precision / len(positives)
    return total / len(f)


def recall_at_k(embeddings, labels, *, temperature, list_temperature, largest_k, positives):
    """1 - smooth recall, mean over queries with positives and over k = 1, 2, 4, ...

    In a batch of N images, each k is at most N.
    """
    f, losses = [unit(x) for x in embeddings], []
    for q, query in enumerate(f):
        s = [dot(query, x) for x in f]
        own = [x for x in range(len(f)) if labels[x] == labels[q] and x != q]
        own.sort(key=lambda x: -s[x].real)
        count, ranked, further = len(own), own[:positives], own[positives:]
        if further:  # either of two that tie may be ranked
            refuse_kink(s[ranked[-1]] - s[further[0]])
        ranks = []
        for x in ranked:
            others = [z for z in range(len(f)) if z not in (q, x)]
            ranks.append(1 + sum(sigmoid((s[z] - s[x]) / temperature) for z in others))
        lists = [min(2**e, len(f)) for e in range(5) if 2**e <= largest_k]
        if ranked:
            recall = 0.0
            for k in lists:
                listed = sum(sigmoid((k - rank) / list_temperature) for rank in ranks)
                refuse_kink(listed - k)
                recall += (k if listed.real > k else listed) / min(k, count) / len(lists)
            losses.append(1 - recall)
    return sum(losses) / max(len(losses), 1)


# Group Loss


def group_loss(embeddings, labels, *, weight, bias, temperature, anchors, steps):
    """-log of the beliefs after the replicator's steps + cross-entropy of the classifier."""
    classes, beliefs, total = range(len(bias)), [], 0.0
    for i, (x, y) in enumerate(zip(embeddings, labels, strict=True)):
        logits = [dot(x, w) + b for w, b in zip(weight, bias, strict=True)]
        total += cross_entropy(logits, y) / len(labels)
        is_anchor = labels[:i].count(y) < anchors
        certain = [float(c == y) for c in classes]
        beliefs.append(certain if is_anchor else softmax([z / temperature for z in logits]))
    centred = [[v - sum(x) / len(x) for v in x] for x in embeddings]
    similarity = [
        [positive_part(dot(a, b) / cmath.sqrt(dot(a, a) * dot(b, b))) for b in centred]
        for a in centred
    ]
    for _ in range(steps):
        refined = []
        for i, belief in enumerate(beliefs):
            support = [
                belief[c] * sum(similarity[i][j] * other[c] for j, other in enumerate(beliefs))
                for c in classes
            ]
            refined.append([s / sum(support) for s in support])
        beliefs = refined
    for belief, y in zip(beliefs, labels, strict=True):
        total -= cmath.log(belief[y] + 1e-12) / len(labels)
    return total


def poincare_point(x, c, radius):
    """The exponential map at the origin, of an embedding that is clipped."""
    length = cmath.sqrt(dot(x, x))
    refuse_kink(length - radius)
    clipped = length if length.real < radius else radius
    return [cmath.tanh(c**0.5 * clipped) * entry / (c**0.5 * length) for entry in x]


def poincare_distance(x, y, c):
    """2 / sqrt(c) artanh(sqrt(c) |-x + y|), by Möbius addition; 0 with derivative 0 at 0."""
    x = [-entry for entry in x]
    xy, xx, yy = dot(x, y), dot(x, x), dot(y, y)
    pairs, divisor = zip(x, y, strict=True), 1 + 2 * c * xy + c * c * xx * yy
    total = [((1 + 2 * c * xy + c * yy) * a + (1 - c * xx) * b) / divisor for a, b in pairs]
    squared = c * dot(total, total)
    return 2 / c**0.5 * cmath.atanh(cmath.sqrt(squared)) if squared.real > 1e-15 else 0.0


def hyp(embeddings, labels, *, temperature, curvature, radius):
    """For each two views i, j: the cross-entropy of a class's view i with all views i and j."""
    views, losses = {}, []
    for x, label in zip(embeddings, labels, strict=True):
        views.setdefault(label, []).append(poincare_point(x, curvature, radius))
    for own, points in views.items():
        for i, j in ((i, j) for i in range(len(points)) for j in range(len(points)) if i != j):
            others = [of for label, of in views.items() if label != own]
            compared = [points[j], *(of[v] for of in others for v in (i, j) if v < len(of))]
            distances = [poincare_distance(points[i], other, curvature) for other in compared]
            losses.append(cross_entropy([-d / temperature for d in distances], 0))
    return sum(losses) / max(1, len(losses))
