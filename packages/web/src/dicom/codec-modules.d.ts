/* The codec packages have no types. Each module creates a codec, and locates its .wasm through `locateFile`. */
declare module '@cornerstonejs/codec-charls/decodewasmjs' {
  const create: import('./codecs.ts').CreateCodec;
  export default create;
}
declare module '@cornerstonejs/codec-openjpeg/decodewasmjs' {
  const create: import('./codecs.ts').CreateCodec;
  export default create;
}
declare module '@cornerstonejs/codec-openjph/wasmjs' {
  const create: import('./codecs.ts').CreateCodec;
  export default create;
}
declare module '@cornerstonejs/codec-libjpeg-turbo-8bit/decodewasmjs' {
  const create: import('./codecs.ts').CreateCodec;
  export default create;
}
