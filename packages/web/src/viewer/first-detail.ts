/* How many voxels are drawn at first, by what this browser draws with. */

/** Building their texture takes a fraction of a second. */
const softwareVoxels = 2_200_000;
const graphicsVoxels = 17_000_000;

/** Known when the first scene was opened. */
let isSoftware = false;

/** Whether a scene is drawn without a graphics card. */
export function isSoftwareDrawn(gl: WebGL2RenderingContext): boolean {
  const info = gl.getExtension('WEBGL_debug_renderer_info');
  const name = info ? String(gl.getParameter(info.UNMASKED_RENDERER_WEBGL)) : '';
  isSoftware = /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
  return isSoftware;
}

export const firstVoxels = (): number => (isSoftware ? softwareVoxels : graphicsVoxels);
