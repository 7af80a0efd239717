import { drawPreview, formatMl, type Outlier, type Picture, type SegmentLabel } from '@tomaat/core';
import { readFiles, readVolumeFiles } from '../../worker/read-volume-files.ts';
import { formatSeconds } from '../console.ts';
import { volumePaths } from '../input-files.ts';
import type { PlannedVolume } from '../plan-inputs.ts';
import { encodePng } from '../png.ts';
import { type BatchRow, scoresOf } from './table.ts';

/** Bytes of a PNG, which a noisy scan may need more of: 200 scans make a page of at most some 10 MB. */
const enoughBytes = 40_000;
const sidePixels = 240;
const volumeFormats = ['nii.gz', 'nii', 'mha', 'nrrd', 'seg.dcm', 'labelmap.dcm'];

/** The middle slices of a scan with its labels as a data URI; undefined where there is no picture to make. */
export async function pictureOf(
  { files }: Pick<BatchRow, 'files'>,
  { path, dicom }: PlannedVolume,
  labels: readonly SegmentLabel[],
  frame?: number,
): Promise<string | undefined> {
  const result = files.find(({ format }) => volumeFormats.includes(format));
  if (!result) return undefined;
  try {
    const [scan, found] = await Promise.all([
      readVolumeFiles(dicom?.paths ?? (await volumePaths(path)), { frame, series: dicom?.seriesUid }),
      readFiles([result.file]),
    ]);
    const options = { labels: found.labels ?? labels, title: '', sidePixels };
    const picture = drawPreview(scan, found.volume, options);
    let png = encodePng(fewerShades(picture, 5));
    for (let bits = 4; bits >= 3 && png.length > enoughBytes; bits--)
      png = encodePng(fewerShades(picture, bits));
    return `data:image/png;base64,${png.toString('base64')}`;
  } catch {
    // A scan without a picture is still a row of the report, such as one whose result is on another grid.
    return undefined;
  }
}

/** So many bits of each colour: the noise of a scan takes most of a PNG. */
function fewerShades({ width, height, rgb }: Picture, bits: number): Picture {
  const [step, most] = [256 >> bits, (1 << bits) - 1];
  return { width, height, rgb: rgb.map((value) => Math.round((255 * Math.floor(value / step)) / most)) };
}

const escapeHtml = (text: string) =>
  text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`).replace(/\p{Cc}|\p{Cf}/gu, '�');

const style = `:root{color-scheme:light dark}body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem auto;max-width:76rem;padding:0 1rem}
h1{font-size:1.4rem}article{border:1px solid #8886;border-radius:8px;padding:.8rem 1rem;margin:0 0 1rem}
h2{font-size:1rem;margin:0 0 .4rem;overflow-wrap:anywhere}img{max-width:100%;background:#000;border-radius:4px}
table{border-collapse:collapse}td,th{padding:.1rem 1rem .1rem 0;text-align:left}td.n{text-align:right;font-variant-numeric:tabular-nums}
.bad{color:light-dark(#b00020,#ff8a80);font-weight:600}.dim{opacity:.7}`;

/** Failed scans first, then the most unusual one: a page without scripts, which needs no other file. */
export function reportHtml(
  title: string,
  rows: readonly BatchRow[],
  pictures: ReadonlyMap<BatchRow, string>,
): string {
  const scores = scoresOf(rows);
  const rank = (row: BatchRow) =>
    row.labels.length === 0 ? Number.POSITIVE_INFINITY : (scores.get(row)?.score ?? 0);
  const sorted = [...rows].sort((a, b) => (rank(a) === rank(b) ? 0 : rank(b) - rank(a)));
  const failed = rows.filter(({ state }) => state !== 'done' && state !== 'skipped').length;
  const parts = sorted.map((row) => article(row, scores.get(row), pictures.get(row)));
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>${escapeHtml(title)}</title><style>${style}</style></head><body>
<h1>${escapeHtml(title)}</h1>
<p>${rows.length} scans, ${failed} without a current result. The most unusual volumes come first; a score above 3.5 is worth a look.</p>
${parts.join('\n')}
</body></html>
`;
}

function article(row: BatchRow, outlier: Outlier | undefined, picture: string | undefined): string {
  const isBad = row.state !== 'done' && row.state !== 'skipped';
  const facts = [
    row.state,
    ...(outlier ? [`outlier score ${outlier.score.toFixed(1)}`] : []),
    ...(row.seconds === undefined ? [] : [formatSeconds(row.seconds)]),
  ];
  const unusual = new Set(outlier?.reasons.map(({ value }) => value));
  const shown = row.labels.slice(0, 60);
  const cells = shown.map(({ value, name, volumeMl }) => {
    const mark = unusual.has(value) ? ' class="bad"' : '';
    return `<tr><td${mark}>${escapeHtml(name.slice(0, 80))}</td><td class="n">${formatMl(volumeMl)} ml</td></tr>`;
  });
  const more =
    row.labels.length > shown.length ? `<p>… and ${row.labels.length - shown.length} more labels</p>` : '';
  return `<article><h2>${escapeHtml(row.id)}</h2><p class="${isBad ? 'bad' : 'dim'}">${escapeHtml(facts.join(' · '))}</p>${
    row.error ? `<p class="bad">${escapeHtml(row.error.message.slice(0, 1000))}</p>` : ''
  }${picture === undefined ? '' : `<img loading="lazy" alt="Three slices of ${escapeHtml(row.id)}" src="${picture}">`}${
    cells.length > 0 ? `<table>${cells.join('')}</table>` : ''
  }${more}</article>`;
}
