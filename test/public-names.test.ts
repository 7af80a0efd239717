import { readFileSync } from 'node:fs';
import * as client from '@tomaat/client';
import * as core from '@tomaat/core';
import { expect, it } from 'vitest';

/* The public names of the packages. Adding one is a promise to users; removing one belongs in the changelog. */

const coreValues = `
  TomaatError acceptShape acceptSuv affinesEqual applyAffine base64Length belongingOf buildDicomObject
  buildKeyPicture buildMeasurementReport buildSegmentation buildStructureSet buildSurface bytesPerVoxel
  canaryDims canaryTensor
  channelCount checkAffine checkDeclaration checkResult checkShape checkVolume chooseDicom chooseFormat
  chooseInput chooseOutput closeLabels codesOfName collectBytes compareLabelMaps compareLabels compareResults compareSessions
  componentOf composeAffine computePolicies computesSuv convertOutput convertVolume crc32
  createDeidentifier createFrameDecoder createStoredZip createUidKey createUidMapper createVoxels
  cropOrPad decimateMesh decodeBase64Text defaultCategory defaultValue defineApp deidentify
  deidentifyFiles deriveCase deriveGrids describeAgreement describeError describeParity describeWhere
  determinant deviceKinds dice diceOfLabels dicomFormats dicomSourceOf differenceLabels differenceMap dilateLabels
  directionOf displayOf distinctFiles drawPreview encodeBase64 encodeDicomFile encodeOutput endingOf
  erodeLabels errorCodes escapeUnseen estimatePrediction explainEmpty extensionOf faultsOfSchema
  fileEndingOf fileGeometrySchema fillHoles filterLabels findComponents findIdentifyingText findOutliers
  flip formatAgreement formatList formatMl formatNames formatPoints formatUidKey formatsOf hasDicomWord hasOwnNetworks
  hasUnseen holdsVoxelsAlone identifySegmentation identity imageTransforms infer infererSchema
  inputSchema inspectDicom inspectFiles inspectStart inspectVolume invert isDicom isDicomFormat
  isExplained isFileInput isFileSpec isNetworkSpec isReadBack isSamePatient isSameResult isSeriesFormat
  isText isVolumeMediaType isVolumeUnlikeBase64 isZip joinMeshes judge keepLargestComponent
  keepsStoredOrder labelColors labelPalette labelSchema labelTransforms labelTypeFor labelVoxels
  labelsWith largestThatFits leastCompared leastJudgedVoxels listFaults listSeries manifestSchema
  mapLabels matchOriginals maxFileBytes maxZipEntries meanIntensities measureLabels measurementsToCsv
  measurementsToTsv mediaTypes meshToStl meshToVtk mmDigits modelServersOf modelsFor mostNumberedLabels
  multiply networkValuesOf neutralDataName neutralNames numberLabels numericVoxels observe openLabels openZip
  orderByOutlier orientationOf originOf outlierThreshold outputFormats outputSchema outputSchemas
  parameterSchema paritySchema parseDicom parseManifest parseMeasurementsCsv parseModelServer
  parseParameter parseParameters parsePoints parseUidKey pipelineSteps predict primaryOutput quietCodec
  readDicomFile readDicomHeader readDicomImage readDicomVolume readMesh readOutput readPrefix
  readSegmentationFile readTransform readVolume readYaml readableEndings refuseIdentity
  removeSmallObjects reorient representationOf requestWords resample resampleArgmax resampleThreshold
  resampleThrough reservedWords resizedGrid restore roundLabels sameGrid saysOutOfMemory scanLabels seriesFormats
  sortFiles soundPart sourceFromBytes spacingOf stageOfInput stages supportedExtensions surfaceDistances
  surfaceOf textCell toHalf traceStages transformEndings transformExtensions transformPoint
  transformPoints uidMapOf verdicts verifiedDevices verifyNetwork volumeEndings volumeFormats volumeInputs volumeReport
  volumeToTensor voxelCount voxelTypeOf voxelTypes webPlatform withField withMeanIntensity
  withoutTrailingSlashes withoutUnseen withoutVolumeEnding worstLabel worstVerdict writeDicomFile
  writeStoredZip writeStripped writeTransform writeTransformMat writeVolume zlibPlatform
`;
const coreTypes = `
  AcceptanceRule Affine Agreement AppContext AppDefinition Belonging Bytes CanaryReport CheckedYaml Code CodecModule
  CodecName CodecOptions ComparedLabel ComparedNames Components Compression ComputePolicy Connectivity
  DataFault DataFileField DecimateOptions DeclaredInput DeclaredInputs DeclaredOutput DeclaredOutputs
  DecodeFrame DecodedFrame DeidentificationReport Deidentified DeidentifiedImage DeidentifyFilesOptions
  DeidentifyOptions DeriveOptions DerivedGrid DeviceKind DicomContext DicomDisplay DicomFile DicomFindings
  DicomFormat DicomHeader DicomImage DicomObject DicomReadOptions DicomSeries DicomSource
  DicomVolumeHeader DisplayWindow EncodeOptions EncodedOutput ErrorCode ErrorData Estimate FileEnding
  FileFault FileGeometry FilePrefix FileSpec FillOptions FrameShape Grid IdentifyingField
  IdentifyingText InferOptions InferResult InfererSpec Input InputForm InputOf InputType InputValue
  InputsOf InspectOptions Interpolation KeyPictureOptions Label LabelAgreement LabelComparison
  LabelMeasurement LabelName LabelTensor LabelVolume LabelVoxels LargestOptions LeftOut LoadedModel
  Maker Manifest ManifestFault MeasuredLabelMap MeasurementReportOptions Mesh ModelServerAddress
  ModelSpec MorphologyOptions NetworkReport NetworkSession NetworkValue NumericVolume NumericVoxels
  Observation Outcome Outlier OutlierReason Output OutputFormat OutputSource OutputType OutputValue
  OutputsOf PadOptions Parameter ParametersOf Parity Picture Platform PointTransform Predecessor
  PredictionContext PredictionRequest PreviewOptions ReadLimits ReadOptions ReadOutput ReadSegmentation
  ReadVolume Reduction ReportedAttribute ResampleOptions ResultOrigin Rewrite SegmentLabel
  SegmentReference SegmentationIdentity SegmentationIdentityOptions SegmentationOptions SegmentationType
  RunBytesOf SelfTest SeriesFormat SeriesList ServedSpec Shape Size SliceReference SlidingWindowSpec
  SmallObjectOptions SortedFiles SourceFile SpatialTransform Stage StageTimes Step StoredOutput
  StoredWindow StoredZip StoredZipOptions StructureSetOptions SurfaceDistance SurfaceOptions SuvScale
  Tensor TextSource Trace TransformContext TransformExtension TypedContext UidMapper UnreadFile Vec3
  Verdict Volume VolumeExtension VolumeFactsOf VolumeFormat VolumeFormatRow VolumeHeader VolumeSummary
  VolumeTransform VoxelType Voxels Whereabouts WindowsLeft WriteOptions ZipMember Zlib
`;
const clientValues = `
  TomaatError announcedParitySchema announcementId announcementLifeSeconds announcementSchema
  announcementType anonymousFiles attemptSchema audienceOf claimSchema claimedJobSchema completeSchema
  createClient createDicomWeb createGatewayClient createRegistryClient createUidKey decideIdentity
  dicomItems dicomNumber dicomTags dicomText dicomTexts dicomValues discoverV1 dispositionName endpoints
  entrySchema errorCodes exposedHeaders failSchema fitSchema formatUidKey gatewaySeriesQuery
  gatewaySeriesSchema gatewaySeriesStates gatewaySummarySchema handBackSchema idempotencyKeySchema
  interfaceV1 isCallersFault isOn isPassing isSettled jobOutputSchema jobSchema jobSchemas jobStates
  loggedOutSchema meSchema measuredLabelMap namedPredictionSchema openApiDocument openDicomInput
  parseHeaderValue parseUidKey predictV1 problemSchema processingSchema receiptSchema requireStored
  requireSuccess seriesSchema serviceSchema settledStates signedAnnouncementSchema stableSeriesSchema
  startValueV1 summarizeReport toSlug touchSchema verifyAnnouncement verifyEntry verifyReceipt
  verifySigned volumeFactsSchema welcomeSchema
`;
const clientTypes = `
  AnnouncedParity Announcement AnnouncementCheck AnonymousFiles AnonymousOptions AttributeGroup Bytes
  ChosenSeries Client ConnectionOptions DeidentificationReport DeidentifyChoice DicomAttribute
  DicomDataset DicomElement DicomFile DicomInput DicomInputFile DicomInputOptions DicomInstance
  DicomKeyword DicomQuery DicomResultOptions DicomSeries DicomStudy DicomWeb DicomWebHeaders
  DicomWebOptions DiscoverOptions Endpoint EndpointName EndpointResponse Entry ErrorCode ErrorData
  FailedInstance FileRef FileSource Fit FormFields GatewayClient GatewayListOptions GatewayPeer
  GatewaySeries GatewaySeriesState GatewayStep GatewaySummary IdentityDecision IdentityFacts
  InputParameter Job JobIn JobOutput JobState LoggedOut Me MetadataOf NamedBytes NamedPrediction
  OutputFile Predecessor PredictOptions PrepareOptions PreparedSeries Problem Processing Program Receipt
  RegistryClient RegistryClientOptions RequestHeader ResumableOptions RetrieveOptions RetrieveProgress
  RetrievedInstance SearchOptions Service ServiceFilters Signed SignedAnnouncement StableSeries
  StoreOptions StoreProgress StoreReason StoreReport StoredInstance UploadFile UploadProgress V1Input
  V1Output V1PredictOptions VerifiedAnnouncement VolumeFacts VolumeFile WatchOptions Welcome
`;

const words = (text: string) => text.trim().split(/\s+/).sort();

it.each([
  ['core', core, coreValues, coreTypes],
  ['client', client, clientValues, clientTypes],
] as const)('@tomaat/%s has these names, and each is written out', (folder, names, values, types) => {
  expect(Object.keys(names).sort()).toEqual(words(values));
  const text = readFileSync(new URL(`../packages/${folder}/src/index.ts`, import.meta.url), 'utf8');
  expect(text).not.toMatch(/export (type )?\*/);
  const named = [...text.matchAll(/export (type )?\{([^}]*)\}/g)].flatMap(([, isType, list]) =>
    list
      .split(',')
      .map((name) => `${isType ?? ''}${name.trim()}`)
      .filter((name) => name.startsWith('type ') && name !== 'type '),
  );
  expect(named.map((name) => name.slice('type '.length)).sort()).toEqual(words(types));
});
