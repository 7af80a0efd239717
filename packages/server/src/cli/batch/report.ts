import { drawPreview, formatMl, type Outlier, type Picture, type SegmentLabel } from '@tomaat/core';
import { readVolumeFiles } from '../../worker/read-volume-files.ts';
import { formatSeconds } from '../console.ts';
import { volumePaths } from '../input-files.ts';
import { encodePng } from '../png.ts';
import { type BatchRow, scoresOf } from './table.ts';

/** Bytes of one picture as a PNG, so that a scan takes at most 50 kB in base64. */
const mostPictureBytes = 34_000;
/** Pixels of a picture's width, which such a PNG mostly holds. */
const mostColumns = 540;

/** The middle slices of a scan with its labels as a data URI; undefined where there is no picture to make. */
export async function pictureOf(row: BatchRow, labels: readonly SegmentLabel[]): Promise<string | undefined> {
  const result = row.files.find(({ format }) => ['nii.gz', 'nii', 'mha', 'nrrd'].includes(format));
  if (!result) return undefined;
  try {
    const scan = await readVolumeFiles(await volumePaths(row.path));
    const labelMap = await readVolumeFiles([result.file]);
    const drawn = drawPreview(scan, labelMap, { labels, title: '' });
    let picture = drawn.width > mostColumns ? shrink(drawn, mostColumns / drawn.width) : drawn;
    let png = encodePng(picture);
    while (png.length > mostPictureBytes && picture.width > 64) {
      picture = shrink(picture, Math.max(0.5, Math.min(0.9, Math.sqrt(mostPictureBytes / png.length))));
      png = encodePng(picture);
    }
    return `data:image/png;base64,${png.toString('base64')}`;
  } catch {
    // A scan without a picture is still a row of the report: 4-D volumes, DICOM, meshes.
    return undefined;
  }
}

/** Each pixel is the mean of those that it covers. */
function shrink({ width, height, rgb }: Picture, factor: number): Picture {
  const [w, h] = [Math.max(1, Math.floor(width * factor)), Math.max(1, Math.floor(height * factor))];
  const small = new Uint8Array(3 * w * h);
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      const [x0, y0] = [Math.floor((x * width) / w), Math.floor((y * height) / h)];
      const [x1, y1] = [
        Math.max(x0 + 1, Math.ceil(((x + 1) * width) / w)),
        Math.max(y0 + 1, Math.ceil(((y + 1) * height) / h)),
      ];
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let j = y0; j < y1; j++) for (let i = x0; i < x1; i++) sum += rgb[3 * (j * width + i) + c];
        small[3 * (y * w + x) + c] = Math.round(sum / ((x1 - x0) * (y1 - y0)));
      }
    }
  return { width: w, height: h, rgb: small };
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
