import './before-all.ts';
import './styles/base.css';
import './styles/widgets.css';
import './styles/pages.css';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { createRoot } from 'react-dom/client';
import { App } from './app.tsx';
import { applyTheme } from './theme.ts';

applyTheme();
const queries = new QueryClient({
  // The client repeats what may be repeated; data of a server that runs on this machine is cheap to ask for again.
  defaultOptions: { queries: { retry: false, staleTime: 10_000, refetchOnWindowFocus: false } },
});
createRoot(document.getElementById('page')!).render(
  <QueryClientProvider client={queries}>
    <App />
  </QueryClientProvider>,
);
