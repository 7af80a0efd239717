import react from '@vitejs/plugin-react';
import { defaultClientConditions, defineConfig } from 'vite';
import { compressAssets } from './compress.ts';

export default defineConfig({
  // The server puts its own path into the document (http/page.ts).
  base: './',
  plugins: [react(), compressAssets()],
  resolve: { conditions: ['tomaat-source', 'onnxruntime-web-use-extern-wasm', ...defaultClientConditions] },
  build: {
    target: 'es2023',
    // Nothing inline: the page's Content-Security-Policy has no place for it.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The page of server and registry, and that of a gateway.
    rolldownOptions: { input: ['index.html', 'gateway.html'] },
    reportCompressedSize: false,
    // NiiVue alone is larger; it is loaded only where a volume is shown.
    chunkSizeWarningLimit: 3000,
  },
  // The worker of DICOM loads its codecs only when such pixels come.
  worker: { format: 'es' },
  server: { proxy: { '/api': process.env.TOMAAT_SERVER ?? 'http://127.0.0.1:9000' } },
});
