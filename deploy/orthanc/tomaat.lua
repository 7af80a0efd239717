-- Orthanc beside a TOMAAT gateway: reports complete series to the gateway, and sends the results that the gateway
-- stores here to the PACS. Settings: "Tomaat" in orthanc.json, "TomaatHookSecret" in credentials.json.

local configuration = GetOrthancConfiguration()
local settings = configuration['Tomaat'] or {}
local secret = configuration['TomaatHookSecret']

if not secret or secret == '' then
  print('TOMAAT: no series is reported: TomaatHookSecret is missing in credentials.json')
  secret = nil
end

-- ---- Series that have come ----

-- Names, ids, dates of a patient are never in a report.
local function reportOf(seriesId, tags, metadata)
  local study = ParseJson(RestApiGet('/series/' .. seriesId .. '/study', false))['MainDicomTags']
  local series = ParseJson(RestApiGet('/series/' .. seriesId, false))
  return {
    study = study['StudyInstanceUID'],
    series = tags['SeriesInstanceUID'],
    modality = tags['Modality'],
    bodyPart = tags['BodyPartExamined'],
    description = tags['SeriesDescription'],
    studyDescription = study['StudyDescription'],
    callingAet = metadata['RemoteAET']
  }, #series['Instances']
end

-- What was not taken is sent again: after this, then after twice as long, at most after ten minutes.
local firstPause = settings['FirstPauseSeconds'] or 10
local function nextTime(tries)
  return os.time() + math.min(600, firstPause * 2 ^ math.min(tries - 1, 10))
end

-- Reports that were not taken: the text, when to send it again, and how often that was done.
local unreported = {}

local function report(seriesId, body)
  local answer = HttpPost(settings['Hook'], body, {
    ['Authorization'] = 'Bearer ' .. secret,
    ['Content-Type'] = 'application/json'
  })
  -- Nil where nobody answers, empty after a refusal, which is in Orthanc's log.
  if answer and answer ~= '' then
    unreported[seriesId] = nil
    return
  end
  local tries = (unreported[seriesId] and unreported[seriesId].tries or 0) + 1
  -- After about a day the gateway's own search has found it, or its rules are to be mended.
  unreported[seriesId] = tries < 150 and { body = body, tries = tries, at = nextTime(tries) } or nil
end

function OnStableSeries(seriesId, tags, metadata)
  if not secret or not settings['Hook'] then return end
  local texts, instances = reportOf(seriesId, tags, metadata)
  -- DumpJson writes either all texts that look like numbers as numbers, or all numbers as texts.
  local body = DumpJson(texts, true):gsub('}%s*$', ', "instances": ' .. instances .. '}')
  report(seriesId, body)
end

-- One of them for each request: the gateway searches every minute or so when it is there.
local function reportAgain()
  for seriesId, one in pairs(unreported) do
    if one.at <= os.time() then
      report(seriesId, one.body)
      return
    end
  end
end

-- ---- Results on their way to the PACS ----

local receiver = settings['SendResultsTo']
local isSent = receiver and receiver ~= ''
-- Metadata of an instance (UserMetadata in orthanc.json): "no" until the PACS has confirmed it, then "yes". It outlives
-- a crash of Orthanc, whose list of jobs does not.
local mark = 'SentToPacs'
local modalities = 'SEG\\SR\\RTSTRUCT\\OT'
-- Instances that the PACS has not confirmed: when to try again, and after how many failures.
local waiting = {}

local function send(instanceId)
  RestApiPost('/modalities/' .. receiver .. '/store',
    DumpJson({ Resources = { instanceId }, Asynchronous = true }, true), false)
end

-- What the gateway stores comes over DICOMweb (origin "Plugins"); from scanners and the PACS comes DIMSE alone.
function OnStoredInstance(instanceId, tags, metadata, origin)
  if not isSent or origin['RequestOrigin'] ~= 'Plugins' then return end
  RestApiPut('/instances/' .. instanceId .. '/metadata/' .. mark, 'no', false)
  send(instanceId)
end

-- The instances of a job that sent some.
local function instancesOf(jobId)
  local job = ParseJson(RestApiGet('/jobs/' .. jobId, false))
  if not isSent or not job or job['Type'] ~= 'DicomModalityStore' then return {} end
  return job['Content']['ParentResources'] or {}
end

function OnJobSuccess(jobId)
  for _, instanceId in ipairs(instancesOf(jobId)) do
    waiting[instanceId] = nil
    RestApiPut('/instances/' .. instanceId .. '/metadata/' .. mark, 'yes', false)
  end
end

function OnJobFailure(jobId)
  for _, instanceId in ipairs(instancesOf(jobId)) do
    local tries = (waiting[instanceId] and waiting[instanceId].tries or 0) + 1
    waiting[instanceId] = { tries = tries, at = nextTime(tries) }
  end
end

-- After a start: what was on its way when Orthanc ended.
local function findUnsent()
  local found = ParseJson(RestApiPost('/tools/find', DumpJson(
    { Level = 'Series', Query = { Modality = modalities }, Expand = false }, true), false)) or {}
  for _, seriesId in ipairs(found) do
    local series = ParseJson(RestApiGet('/series/' .. seriesId, false))
    for _, instanceId in ipairs(series and series['Instances'] or {}) do
      local all = ParseJson(RestApiGet('/instances/' .. instanceId .. '/metadata?expand', false)) or {}
      if all[mark] == 'no' then waiting[instanceId] = { tries = 0, at = 0 } end
    end
  end
end

local hasLooked = false

-- The gateway's searches are the clock here.
function IncomingHttpRequestFilter(method, uri, ip, username, httpHeaders)
  reportAgain()
  if not isSent then return true end
  if not hasLooked then
    hasLooked = true
    findUnsent()
  end
  for instanceId, one in pairs(waiting) do
    if one.at <= os.time() then
      -- Not again before the next failure.
      one.at = math.huge
      send(instanceId)
    end
  end
  return true
end
