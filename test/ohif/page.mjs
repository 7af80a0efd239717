/*
 * What OHIF's extension for MONAI Label sends and reads, in a page: its own client and its own reader of results, unmodified. `monai-label` is
 * the folder of its source, which the bundler is given.
 */
import MonaiLabelClient from 'monai-label/services/MonaiLabelClient.js';
import SegmentationReader from 'monai-label/utils/SegmentationReader.js';

const base64 = (bytes) => {
  let text = '';
  for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  return btoa(text);
};

globalThis.ohif = {
  async info(url) {
    const { status, data } = await new MonaiLabelClient(url).info();
    return { status, data };
  },
  /** As `onSegmentation` and `updateView` of its panel do; `status` is undefined where the browser hides the answer. */
  async segment(url, model, series) {
    const { status, data, response } = await new MonaiLabelClient(url).infer(model, series, {});
    if (status !== 200) return { status: response?.status };
    const { header, image } = SegmentationReader.parseNrrdData(data);
    return { status, sizes: header.sizes, voxels: base64(new Uint8Array(image)) };
  },
};
