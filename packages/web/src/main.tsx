import { App } from './app.tsx';
import { mount } from './mount.tsx';
import './styles/dicom.css';
import './styles/viewer.css';
import './styles/compare.css';
import './styles/jobs.css';

mount(<App />);
