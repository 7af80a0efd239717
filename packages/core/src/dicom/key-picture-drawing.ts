import {
  createPicture,
  drawText,
  fillBox,
  fitWidth,
  letterHeight,
  type Picture,
  type Rgb,
  setPixel,
  textWidth,
} from './picture.ts';

/* One slice with the outlines of its labels, between a heading and a legend: what a key picture shows. */

export interface PictureContent {
  /** Brightness of each pixel of the slice from 0 to 255, columns fastest. */
  readonly grey: ArrayLike<number>;
  /** The label of each of its pixels; 0 for none. */
  readonly labels: ArrayLike<number>;
  readonly columns: number;
  readonly rows: number;
  /** Distance between columns, and between rows, mm. */
  readonly spacing: readonly [columns: number, rows: number];
  readonly colorOf: (label: number) => Rgb;
  /** Lines above the image. */
  readonly heading: readonly PictureLine[];
  /** Lines below it; one with a box is that of a label. */
  readonly legend: readonly (PictureLine & { readonly box?: Rgb })[];
  /** Where the edges of the image are in the patient, such as R or H. */
  readonly edges: {
    readonly left: string;
    readonly right: string;
    readonly top: string;
    readonly bottom: string;
  };
  /** Pixels of the longer side of the image; as many as its own within 512 to 1024 if missing. */
  readonly sidePixels?: number;
}

/** A line of printable ASCII. What does not fit is cut from `text`, never from `end`, which follows it. */
export interface PictureLine {
  readonly text: string;
  readonly end?: string;
  readonly color: Rgb;
}

export interface DrawnPicture {
  readonly picture: Picture;
  /** Size of a pixel, mm: the order of PixelSpacing. */
  readonly pixelSpacing: readonly [rows: number, columns: number];
}

/** The longer side of the image, in pixels: small slices are enlarged, so that outlines and text are readable. */
const [shortest, longest] = [512, 1024];
/** Room for 39 letters. */
const narrowest = 480;
/** Room for two columns of a long legend. */
const wide = 720;
const margin = 8;
const lineHeight = letterHeight + 4;
const bandHeight = (lines: number) => 2 * margin + lines * lineHeight;

const white: Rgb = [235, 235, 235];

/** Draws the picture. Its pixels are square: rows and columns are as far apart as in the patient. */
export function drawKeyPicture(content: PictureContent): DrawnPicture {
  const image = imageSize(content);
  // An even number of columns, so that the pixels take an even number of bytes.
  const width = 2 * Math.ceil(Math.max(content.sidePixels ?? narrowest, image.width) / 2);
  const columns = content.legend.length > 6 && width >= wide ? 2 : 1;
  const legendLines = Math.ceil(content.legend.length / columns);
  const top = bandHeight(content.heading.length);
  const picture = createPicture(width, top + image.height + bandHeight(legendLines));
  const left = Math.floor((width - image.width) / 2);
  for (const [i, line] of content.heading.entries())
    drawLine(picture, line, [margin, margin + i * lineHeight], width - 2 * margin);
  drawSlice(picture, content, { left, top, ...image });
  drawEdges(picture, content.edges, { left, top, ...image });
  const columnWidth = Math.floor(width / columns);
  for (const [i, line] of content.legend.entries()) {
    const x = margin + Math.floor(i / legendLines) * columnWidth;
    const y = top + image.height + margin + (i % legendLines) * lineHeight;
    drawLegendLine(picture, line, [x, y], columnWidth - 2 * margin);
  }
  return {
    picture,
    pixelSpacing: [
      (content.rows * content.spacing[1]) / image.height,
      (content.columns * content.spacing[0]) / image.width,
    ],
  };
}

interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

function imageSize({ columns, rows, spacing, sidePixels }: PictureContent): Pick<Box, 'width' | 'height'> {
  const [widthMm, heightMm] = [columns * spacing[0], rows * spacing[1]];
  const longer = Math.max(widthMm, heightMm);
  const pixels = sidePixels ?? Math.min(longest, Math.max(shortest, longer / Math.min(...spacing)));
  const lengthOf = (mm: number) => Math.max(1, Math.round((mm / longer) * pixels));
  return { width: lengthOf(widthMm), height: lengthOf(heightMm) };
}

function drawSlice(picture: Picture, content: PictureContent, box: Box): void {
  const { width, height, left, top } = box;
  const labels = enlargeLabels(content, box);
  const grey = enlargeGrey(content, box);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = labels[y * width + x];
      const shade = grey[y * width + x];
      const isOutline = value !== 0 && isNearEdge(labels, width, height, x, y);
      if (isOutline) setPixel(picture, left + x, top + y, content.colorOf(value));
      else
        picture.rgb.fill(
          shade,
          3 * ((top + y) * picture.width + left + x),
          3 * ((top + y) * picture.width + left + x + 1),
        );
    }
  }
}

/** Outlines are two pixels wide, within their label, so that none hides its neighbour. */
function isNearEdge(labels: Uint16Array, width: number, height: number, x: number, y: number): boolean {
  const value = labels[y * width + x];
  for (let dy = -2; dy <= 2; dy++) {
    for (let dx = -2; dx <= 2; dx++) {
      if (Math.abs(dx) + Math.abs(dy) > 2) continue;
      const [i, j] = [x + dx, y + dy];
      if (i < 0 || j < 0 || i >= width || j >= height || labels[j * width + i] !== value) return true;
    }
  }
  return false;
}

/** The label of the pixel of the slice below each pixel; where the slice is made smaller, none that it has is lost. */
function enlargeLabels({ labels, columns, rows }: PictureContent, { width, height }: Box): Uint16Array {
  const out = new Uint16Array(width * height);
  for (let y = 0; y < height; y++) {
    const [fromRow, toRow] = pixelsBelow(y, height, rows);
    for (let x = 0; x < width; x++) {
      const [fromColumn, toColumn] = pixelsBelow(x, width, columns);
      for (let row = fromRow; row < toRow && out[y * width + x] === 0; row++)
        for (let column = fromColumn; column < toColumn && out[y * width + x] === 0; column++)
          out[y * width + x] = labels[row * columns + column];
    }
  }
  return out;
}

/** From which to before which pixel of a row of the slice a pixel of the picture shows: one, unless it is made smaller. */
function pixelsBelow(at: number, length: number, count: number): [from: number, to: number] {
  if (count <= length) {
    const nearest = Math.floor(((at + 0.5) * count) / length);
    return [nearest, nearest + 1];
  }
  const from = Math.floor((at * count) / length);
  return [from, Math.max(from + 1, Math.floor(((at + 1) * count) / length))];
}

/** Interpolated linearly; where the slice is made smaller, the mean of its pixels. */
function enlargeGrey({ grey, columns, rows }: PictureContent, { width, height }: Box): Uint8Array {
  const lines = new Float32Array(width * rows);
  for (let row = 0; row < rows; row++) {
    const at = row * columns;
    mixInto(lines, row * width, 1, width, columns, (column) => grey[at + column]);
  }
  const out = new Uint8ClampedArray(width * height);
  for (let x = 0; x < width; x++) mixInto(out, x, width, height, rows, (row) => lines[row * width + x]);
  return new Uint8Array(out.buffer);
}

/** A line of `length` pixels, each a mix of the `count` values below it, written from a place on in steps. */
function mixInto(
  out: Float32Array | Uint8ClampedArray,
  start: number,
  stride: number,
  length: number,
  count: number,
  valueAt: (index: number) => number,
): void {
  for (let at = 0; at < length; at++) {
    let sum = 0;
    if (count > length) {
      const [from, to] = pixelsBelow(at, length, count);
      for (let i = from; i < to; i++) sum += valueAt(i) / (to - from);
    } else {
      const place = Math.min(count - 1, Math.max(0, ((at + 0.5) * count) / length - 0.5));
      const low = Math.min(count - 2, Math.floor(place));
      sum = low < 0 ? valueAt(0) : valueAt(low) + (place - low) * (valueAt(low + 1) - valueAt(low));
    }
    // A clamped array rounds.
    out[start + at * stride] = sum;
  }
}

function drawEdges(picture: Picture, { left, right, top, bottom }: PictureContent['edges'], box: Box): void {
  const letters = (text: string, x: number, y: number) =>
    drawText(picture, text, [Math.round(x), Math.round(y)], white, true);
  // A strip has no room for them.
  if (Math.min(box.width, box.height) < 4 * lineHeight) return;
  const middle = (text: string) => box.left + (box.width - textWidth(text)) / 2;
  const halfway = box.top + (box.height - letterHeight) / 2;
  letters(left, box.left + margin, halfway);
  letters(right, box.left + box.width - margin - textWidth(right), halfway);
  letters(top, middle(top), box.top + margin);
  letters(bottom, middle(bottom), box.top + box.height - margin - letterHeight);
}

const boxSize = 14;

function drawLegendLine(
  picture: Picture,
  { box, ...line }: PictureContent['legend'][number],
  [x, y]: readonly [number, number],
  width: number,
): void {
  const indent = box ? boxSize + margin : 0;
  if (box) fillBox(picture, [x, y, boxSize, boxSize], box);
  drawLine(picture, line, [x + indent, y], width - indent);
}

function drawLine(
  picture: Picture,
  { text, end = '', color }: PictureLine,
  place: readonly [number, number],
  width: number,
): void {
  drawText(picture, `${fitWidth(text, width - textWidth(end))}${end}`, place, color);
}
