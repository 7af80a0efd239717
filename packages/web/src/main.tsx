import './styles/base.css';
import './styles/widgets.css';
import './styles/pages.css';
import './styles/dicom.css';
import './styles/compare.css';
import './styles/jobs.css';
import { QueryCache, QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { TomaatError } from '@tomaat/core';
import { createRoot } from 'react-dom/client';
import { Router } from 'wouter';
import { App } from './app.tsx';
import { basePath } from './base.ts';
import { applyTheme } from './theme.ts';

applyTheme();
const queries: QueryClient = new QueryClient({
  // An ended session first shows in the response to another request.
  queryCache: new QueryCache({
    onError: (error) => {
      if (error instanceof TomaatError && error.code === 'UNAUTHORIZED')
        void queries.invalidateQueries({ queryKey: ['me'] });
    },
  }),
  // The client already retries what is safe to retry; data from a local server is cheap to request again.
  defaultOptions: { queries: { retry: false, staleTime: 10_000, refetchOnWindowFocus: false } },
});
createRoot(document.getElementById('page')!).render(
  <QueryClientProvider client={queries}>
    <Router base={basePath}>
      <App />
    </Router>
  </QueryClientProvider>,
);
