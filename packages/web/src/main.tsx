import { App } from './app.tsx';
import { mount } from './mount.tsx';
import './styles/dicom.css';

mount(<App />);
