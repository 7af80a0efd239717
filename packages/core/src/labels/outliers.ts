/**
 * How unusual the volumes of each scan are among those of the same batch: the modified z-score of Iglewicz and Hoaglin ("How to Detect and
 * Handle Outliers", 1993), 0.6745 · |x − median| / MAD, on log(1 + ml). Where the median absolute deviation is 0, 1.2533 × the mean
 * absolute deviation replaces MAD / 0.6745. A label that is missing in a scan counts 0 ml.
 *
 * @param rows millilitres by the name of the label, for each scan
 * @returns in the order of `rows`: the largest score of a label (0 where nothing differs), and the labels from the most unusual one on
 */
export function outlierScores(
  rows: readonly ReadonlyMap<string, number>[],
): { score: number; reasons: { label: string; score: number }[] }[] {
  const labels = [...new Set(rows.flatMap((row) => [...row.keys()]))];
  const scores = new Map(
    labels.map((label) => [label, modifiedZ(rows.map((row) => Math.log1p(row.get(label) ?? 0)))]),
  );
  return rows.map((_, i) => {
    const reasons = labels
      .map((label) => ({ label, score: scores.get(label)![i] }))
      .filter(({ score }) => score > 0)
      .sort((a, b) => b.score - a.score);
    return { score: reasons[0]?.score ?? 0, reasons };
  });
}

function modifiedZ(values: readonly number[]): number[] {
  const middle = medianOf(values);
  const away = values.map((value) => Math.abs(value - middle));
  const deviation = medianOf(away);
  const mean = away.reduce((sum, value) => sum + value, 0) / (away.length || 1);
  const unit = deviation > 0 ? deviation / 0.6745 : 1.253314 * mean;
  return away.map((value) => (unit > 0 ? value / unit : 0));
}

function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half] : ((sorted[half - 1] ?? 0) + (sorted[half] ?? 0)) / 2;
}
