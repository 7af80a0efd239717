import { type Niivue, NVImage } from '@niivue/niivue';
import type { Affine, Volume } from '@tomaat/core';
import { prepare } from './prepare.ts';
import { lookupTable } from './scene-shapes.ts';

/* When and how NiiVue builds the textures of the scan and of its labels. */

export type Layer = 'scan' | 'labels';

/**
 * NiiVue rebuilds all its textures at each change of a volume, its window or a mesh, which takes seconds without a
 * graphics card. This makes it rebuild, once a frame and before anything else draws, the layers that were touched; a
 * mesh touches none. `rebuilds` counts the textures built since the scene was opened.
 */
export function rebuildOnlyChanged(niivue: Niivue) {
  const rebuilds = { scan: 0, labels: 0 };
  const draw = niivue.drawScene.bind(niivue);
  const stale = new Set<Layer>();
  let frame: number | undefined;
  const redraw = () => {
    frame ??= requestAnimationFrame(() => niivue.drawScene());
  };
  const touch = (...layers: readonly Layer[]) => {
    for (const layer of layers) stale.add(layer);
    redraw();
  };
  const build = (layer: Layer, at: number) => {
    const image = niivue.volumes[at];
    if (!image || !stale.has(layer)) return;
    rebuilds[layer]++;
    withoutGradients(niivue, () => niivue.refreshLayers(image, at));
  };
  niivue.updateGLVolume = redraw;
  niivue.drawScene = () => {
    if (frame !== undefined) cancelAnimationFrame(frame);
    frame = undefined;
    if (stale.size > 0) {
      build('scan', 0);
      build('labels', 1);
      // Without an overlay the shaders must know that there is none.
      if (stale.has('labels') && niivue.volumes.length === 1 && !stale.has('scan') && rebuilds.scan > 0)
        withoutOverlay(niivue);
      stale.clear();
    }
    niivue.furthestVertexFromOrigin = Math.max(
      niivue.volumes.length > 0 ? (niivue.volumeObject3D?.furthestVertexFromOrigin ?? 0) : 0,
      ...niivue.meshes.map((mesh) => mesh.furthestVertexFromOrigin),
    );
    useOverlayBlend(niivue);
    return draw();
  };
  return { rebuilds, redraw, touch };
}

/**
 * In slices a label is drawn in its own colour up to the edges of its voxels. Interpolated as the scan is, a label of one
 * voxel would fade, and between two labels there would be the colour of neither. Around labels the scan is darker, by a
 * line of a pixel: a pale one is seen on white bone, too.
 */
export function drawLabelsDiscrete(niivue: Niivue): void {
  niivue.setCustomSliceShader(sliceShader(Math.max(1, Math.round(globalThis.devicePixelRatio ?? 1))));
  const interpolate = niivue.updateInterpolation.bind(niivue);
  niivue.updateInterpolation = (layer, isForceLinear) => {
    niivue.opts.isNearestInterpolation = layer > 0;
    interpolate(layer, isForceLinear);
  };
}

/** A scan and labels of one colour each, as NiiVue draws them, and the line around labels: so many pixels thick. */
const sliceShader = (linePx: number) => `#version 300 es
precision highp int;
precision highp float;
uniform highp sampler3D volume;
uniform highp sampler3D overlay;
uniform float overlays;
uniform float opacity;
uniform float overlayAlphaShader;
in vec3 texPos;
out vec4 color;
void main() {
  vec3 across = dFdx(texPos) * ${linePx}.0;
  vec3 down = dFdy(texPos) * ${linePx}.0;
  color = vec4(texture(volume, texPos).rgb, opacity);
  if (overlays <= 0.0) return;
  vec4 label = texture(overlay, texPos);
  if (label.a > 0.0) {
    color.rgb = mix(color.rgb, label.rgb, label.a * overlayAlphaShader);
    return;
  }
  float beside = max(
    max(texture(overlay, texPos + across).a, texture(overlay, texPos - across).a),
    max(texture(overlay, texPos + down).a, texture(overlay, texPos - down).a)
  );
  color.rgb *= 1.0 - 0.75 * beside * min(1.0, 2.0 * overlayAlphaShader);
}`;

/** Sets the opacity of labels in the 3-D view. */
function useOverlayBlend({ renderShader, gl, opts }: Niivue): void {
  if (!renderShader) return;
  renderShader.use(gl);
  gl.uniform1f(renderShader.uniforms.renderOverlayBlend, opts.renderOverlayBlend);
}

function withoutOverlay({ renderShader, pickingImageShader, customSliceShader, gl }: Niivue): void {
  for (const shader of [renderShader, pickingImageShader, customSliceShader]) {
    shader?.use(gl);
    if (shader) gl.uniform1f(shader.uniforms.overlays, 0);
  }
}

/**
 * NiiVue also computes the gradients of a scan, in several passes over all voxels, for a way of lighting that is not
 * used here. The passes are made to draw nothing, and their texture is freed. They also ask twice a slice whether there
 * is something to draw to; each answer would be waited for.
 */
function withoutGradients(niivue: Niivue, refresh: () => void): void {
  const { gl, blurShader } = niivue;
  if (!blurShader) {
    refresh();
    return;
  }
  const use = blurShader.use;
  blurShader.use = (context) => {
    use.call(blurShader, context);
    gl.enable(gl.RASTERIZER_DISCARD);
  };
  const check = gl.checkFramebufferStatus;
  gl.checkFramebufferStatus = () => gl.FRAMEBUFFER_COMPLETE;
  try {
    refresh();
  } finally {
    blurShader.use = use;
    gl.checkFramebufferStatus = check;
    gl.disable(gl.RASTERIZER_DISCARD);
    if (niivue.gradientTexture) gl.deleteTexture(niivue.gradientTexture);
    niivue.gradientTexture = null;
  }
}

/**
 * Draws a small volume that nobody sees: the browser compiles the programs of the graphics card, and what reads an image,
 * when they are first used, which takes a third of a second without a card. To be called before there is a volume.
 */
export async function compilePrograms(niivue: Niivue): Promise<void> {
  const count = smallSize ** 3;
  const scan = await smallImage(Int16Array.from({ length: count }, (_, i) => i % 99));
  const labels = await smallImage(Uint8Array.from({ length: count }, (_, i) => i % 2));
  labels.setColormapLabel(lookupTable([{ value: 1, name: 'label', color: '#ffffff', visible: true }]));
  niivue.volumes = [scan, labels];
  niivue.back = scan;
  niivue.overlays = [labels];
  for (const [layer, image] of niivue.volumes.entries())
    withoutGradients(niivue, () => niivue.refreshLayers(image, layer));
  niivue.drawScene();
  niivue.volumes = [];
  niivue.overlays = [];
  niivue.drawScene();
}

const smallSize = 64;

async function smallImage(voxels: Volume['voxels']): Promise<NVImage> {
  const affine: Affine = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
  const size = [smallSize, smallSize, smallSize] as const;
  const { bytes } = await prepare({ size, components: 1, affine, voxels }, { kind: 'mean', factor: 1 });
  return NVImage.loadFromUrl({ url: bytes.buffer, name: 'small.nii', colorbarVisible: false });
}
