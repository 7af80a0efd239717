import { type OverlayContent, overlayShapes, type PlaneShapes } from './overlay-shapes.ts';
import type { Scene } from './scene.ts';

const background = '#0b0e11';
const ink = '#e7ecf0';
/** Below outlines, as in the page. */
const casingColor = 'rgb(11 14 17 / 65%)';
const rulerColor = '#ffd43b';
const researchUse = 'For research use only. Not a medical device.';

/**
 * What the canvas shows, with its overlay, as PNG; below it the service, what is shown, and the research-use line. Nothing of the
 * patient: no name, no file name, no date.
 *
 * @param content undefined where no plane is shown
 */
export function takeScreenshot(
  scene: Scene,
  content: OverlayContent | undefined,
  caption: readonly string[],
  width: number,
): Promise<Blob> {
  const picture = scene.snapshot();
  const scale = picture.width / Math.max(1, width);
  const lines = [...caption, researchUse];
  const size = 13 * scale;
  const canvas = document.createElement('canvas');
  const context = canvas.getContext('2d')!;
  const font = `${size}px sans-serif`;
  context.font = font;
  const wrapped = lines.flatMap((line) => wrap(context, line, picture.width - 2 * size));
  canvas.width = picture.width;
  canvas.height = picture.height + Math.ceil((wrapped.length + 1) * 1.5 * size);
  context.fillStyle = background;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, 0, 0);
  context.save();
  context.scale(scale, scale);
  if (content) for (const shape of overlayShapes(scene.drawnPlanes(), content)) drawShapes(context, shape);
  context.restore();
  // A canvas forgets its font with its size.
  context.font = font;
  context.fillStyle = ink;
  wrapped.forEach((line, i) => void context.fillText(line, size, picture.height + (i + 1.3) * 1.5 * size));
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error('The picture could not be encoded.')))),
  );
}

function drawShapes(context: CanvasRenderingContext2D, shape: PlaneShapes): void {
  const { left, top, width, height, title, outlines, rulers } = shape;
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  context.font = '13px sans-serif';
  context.lineWidth = 3.5;
  context.strokeStyle = casingColor;
  for (const { path } of outlines) context.stroke(new Path2D(path));
  context.lineWidth = 1.5;
  for (const { path, color } of outlines) {
    context.strokeStyle = color;
    context.stroke(new Path2D(path));
  }
  context.strokeStyle = context.fillStyle = rulerColor;
  for (const { from, to, text } of rulers) {
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
    context.fillText(text, to[0] + 8, to[1] - 6);
  }
  context.fillStyle = ink;
  context.fillText(title, left + 8, top + height - 8);
  context.restore();
}

/** A line broken at spaces to a width in pixels; a longer word stays whole. */
function wrap(context: CanvasRenderingContext2D, text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const longer = lines.length > 0 ? `${lines.at(-1)} ${word}` : word;
    if (lines.length > 0 && context.measureText(longer).width <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}
