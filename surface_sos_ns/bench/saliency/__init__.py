"""`surface-sos bench saliency`: masks against true ones, by the measures of salient object detection."""
