import { App } from './app.tsx';
import { mount } from './mount.tsx';
import './styles/dicom.css';
import './styles/viewer.css';
import './styles/compare.css';

mount(<App />);
